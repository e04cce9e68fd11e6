#if !defined(__APPLE__)

#  define _GNU_SOURCE
#  include <dlfcn.h>
#  include <link.h>
#  include <string.h>

#  include "libllama.h"

// Hosts may have loaded it for themselves alone (RTLD_LOCAL): then only its own handle leads to it.
static int open_libllama(struct dl_phdr_info *info, size_t size, void *handle) {
  (void)size;
  const char *const slash = strrchr(info->dlpi_name, '/');
  const char *const base = slash ? slash + 1 : info->dlpi_name;
  if (strncmp(base, "libllama.", strlen("libllama.")) != 0) return 0;
  void *const library = dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD);
  if (!library) return 0;
  *(void **)handle = library;
  return 1;
}

void *ckvp_libllama_open(void) {
  void *library = NULL;
  return dl_iterate_phdr(open_libllama, &library) ? library : NULL;
}

void *ckvp_libllama_symbol(void *library, const char *name) { return dlsym(library, name); }

#else
typedef int ckvp_not_empty;
#endif
