#if defined(__APPLE__)

#  include <dlfcn.h>
#  include <stddef.h>
#  include <string.h>

#  include "libllama.h"
#  include "llama_api.h"

// A library's own references are not interposed, so they lead to the engine's functions. In a
// program without the engine they are NULL.
#  pragma clang diagnostic push
#  pragma clang diagnostic ignored "-Wpedantic"
#  define CKVL_FN(name) extern __typeof__(name) name __attribute__((weak_import));
#  define CKVP_OPTIONAL(name) CKVL_FN(name)
#  include "llama_api.def"
#  include "preload_api.def"
#  undef CKVL_FN
#  undef CKVP_OPTIONAL

#  define CKVL_FN(name) {#name, (void *)name},
#  define CKVP_OPTIONAL(name) CKVL_FN(name)
static const struct {
  const char *name;
  void *function;
} functions[] = {
#  include "llama_api.def"
#  include "preload_api.def"
};
#  pragma clang diagnostic pop

void *ckvp_libllama_symbol(void *library, const char *name) {
  (void)library;
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
    if (strcmp(functions[i].name, name) == 0) return functions[i].function;
  }
  return NULL;
}

void *ckvp_next_symbol(const char *name, const void *caller) {
  (void)caller;
  return dlsym(RTLD_NEXT, name);
}

bool ckvp_is_node(void) { return dlsym(RTLD_DEFAULT, "napi_create_function") != NULL; }

void *ckvp_libllama_open(void) {
  static char any;
  return ckvp_libllama_symbol(NULL, "llama_decode") ? &any : NULL;
}

#else
typedef int ckvp_not_empty;
#endif
