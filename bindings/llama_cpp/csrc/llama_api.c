#include "llama_api.h"

#include <string.h>

// ISO C has no cast from an object pointer to a function pointer; the bytes are the same.
static bool find(void *slot, ckvl_lookup lookup, void *library, const char *name,
                 const char **missing) {
  void *const symbol = lookup(library, name);
  if (!symbol) {
    *missing = name;
    return false;
  }
  memcpy(slot, &symbol, sizeof symbol);
  return true;
}

#define CKVL_FN(name) \
  if (!find(&api->name, lookup, library, #name, missing)) return false;

bool ckvl_api_fill(ckvl_api *api, ckvl_lookup lookup, void *library, const char **missing) {
#include "llama_api.def"
  return true;
}

bool ckvl_host_api_fill(ckvl_host_api *api, ckvl_lookup lookup, void *library,
                        const char **missing) {
#include "host_api.def"
  return true;
}
