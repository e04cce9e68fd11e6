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

// The number of an operation by its name; false if no release has so many.
static bool find_op(const ckvl_api *api, const char *name, enum ggml_op *op, const char **missing) {
  for (int32_t i = 0; i < GGML_OP_COUNT; i++) {
    *op = (enum ggml_op)i;
    if (strcmp(api->ggml_op_name(*op), name) == 0) return true;
  }
  *missing = name;
  return false;
}

bool ckvl_api_fill(ckvl_api *api, ckvl_lookup lookup, void *library, const char **missing) {
#include "llama_api.def"
  // The later one last: a release that has it has all numbers that are tried.
  return find_op(api, "CPY", &api->copy, missing) &&
         find_op(api, "SET_ROWS", &api->set_rows, missing) &&
         find_op(api, "FLASH_ATTN_EXT", &api->flash_attention, missing);
}

bool ckvl_host_api_fill(ckvl_host_api *api, ckvl_lookup lookup, void *library,
                        const char **missing) {
#include "host_api.def"
  return true;
}
