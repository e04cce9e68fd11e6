#define _GNU_SOURCE
#include "host.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(ckvp_host *) found;

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

static void *lookup(void *library, const char *name) { return dlsym(library, name); }

static void *find(ckvp_host *host, void *library, const char *name, bool is_needed) {
  void *const symbol = lookup(library, name);
  if (!symbol && is_needed && !host->missing) host->missing = name;
  return symbol;
}

static ckvp_host *make(void *library) {
  ckvp_host *host = calloc(1, sizeof *host);
  if (!host) return NULL;
  void *symbol;
#define CKVL_FN(name)                        \
  symbol = find(host, library, #name, true); \
  memcpy(&host->name, &symbol, sizeof symbol);
#define CKVP_OPTIONAL(name)                   \
  symbol = find(host, library, #name, false); \
  memcpy(&host->name, &symbol, sizeof symbol);
#include "preload_api.def"
#undef CKVL_FN
#undef CKVP_OPTIONAL
  host->is_complete = !host->missing && ckvl_api_fill(&host->api, lookup, library, &host->missing);
  return host;
}

const ckvp_host *ckvp_host_get(void) {
  ckvp_host *host = atomic_load_explicit(&found, memory_order_acquire);
  if (host) return host;
  pthread_mutex_lock(&lock);
  host = atomic_load_explicit(&found, memory_order_relaxed);
  void *library = NULL;
  if (!host && dl_iterate_phdr(open_libllama, &library) && library) {
    host = make(library);
    atomic_store_explicit(&found, host, memory_order_release);
  }
  pthread_mutex_unlock(&lock);
  return host;
}
