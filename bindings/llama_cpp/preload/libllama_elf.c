#if !defined(__APPLE__)

#  define _GNU_SOURCE
#  include <dlfcn.h>
#  include <link.h>
#  include <string.h>

#  include "libllama.h"

#  define PATH_BYTES 4096

typedef struct {
  int skip;  // libraries of that name to pass over
  char path[PATH_BYTES];
} search;

static int find(struct dl_phdr_info *info, size_t size, void *data) {
  (void)size;
  search *s = data;
  const char *const slash = strrchr(info->dlpi_name, '/');
  const char *const base = slash ? slash + 1 : info->dlpi_name;
  const size_t length = strlen(info->dlpi_name);
  if (strncmp(base, "libllama.", strlen("libllama.")) != 0 || length >= PATH_BYTES) return 0;
  if (s->skip-- > 0) return 0;
  memcpy(s->path, info->dlpi_name, length + 1);
  return 1;
}

// Hosts may have loaded it for themselves alone (RTLD_LOCAL): then only its own handle leads to it.
// It is opened after the walk, which holds a lock that another thread's dlopen waits for.
void *ckvp_libllama_open(void) {
  void *library = NULL;
  search s;
  for (int i = 0; !library; i++) {
    s.skip = i;
    if (!dl_iterate_phdr(find, &s)) break;
    library = dlopen(s.path, RTLD_LAZY | RTLD_NOLOAD);
  }
  return library;
}

void *ckvp_libllama_symbol(void *library, const char *name) { return dlsym(library, name); }

void *ckvp_next_symbol(const char *name, const void *caller) {
  static const char here;
  Dl_info info, found, self;
  // Loaded for itself alone, it comes after nobody.
  void *const own = dladdr(caller, &info) ? dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD) : NULL;
  void *symbol = own ? dlsym(own, name) : NULL;
  if (own) dlclose(own);
  const bool is_ours =
      symbol && dladdr(symbol, &found) && dladdr(&here, &self) && found.dli_fbase == self.dli_fbase;
  return symbol && !is_ours ? symbol : dlsym(RTLD_NEXT, name);
}

bool ckvp_is_node(void) { return dlsym(RTLD_DEFAULT, "napi_create_function") != NULL; }

#else
typedef int ckvp_not_empty;
#endif
