#include "host.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "libllama.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(ckvp_host *) found;

static void *find(ckvp_host *host, void *library, const char *name, bool is_needed) {
  void *const symbol = ckvp_libllama_symbol(library, name);
  if (!symbol && is_needed && !host->missing) host->missing = name;
  return symbol;
}

// No memory is asked for: without the table the host's calls would lead nowhere.
static ckvp_host *make(void *library) {
  static ckvp_host table;
  ckvp_host *const host = &table;
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
  host->is_complete =
      !host->missing && ckvl_api_fill(&host->api, ckvp_libllama_symbol, library, &host->missing);
  return host;
}

const ckvp_host *ckvp_host_get(void) {
  ckvp_host *host = atomic_load_explicit(&found, memory_order_acquire);
  if (host) return host;
  pthread_mutex_lock(&lock);
  host = atomic_load_explicit(&found, memory_order_relaxed);
  void *const library = host ? NULL : ckvp_libllama_open();
  if (library) {
    host = make(library);
    atomic_store_explicit(&found, host, memory_order_release);
  }
  pthread_mutex_unlock(&lock);
  return host;
}
