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

#else
typedef int ckvp_not_empty;
#endif
