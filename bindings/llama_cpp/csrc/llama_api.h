// The engine's functions as tables of pointers, found at run time: nothing here or in the files
// that use it refers to a llama or ggml symbol at link time.
#ifndef CKVL_LLAMA_API_H
#define CKVL_LLAMA_API_H

#include <stdbool.h>
#include <stddef.h>

#include <llama.h>

typedef struct ckvl_api {
  // Numbers of operations in this release: they shift between releases.
  enum ggml_op flash_attention, copy, set_rows;
#define CKVL_FN(name) __typeof__(&name) name;
#include "llama_api.def"
#undef CKVL_FN
} ckvl_api;

typedef struct ckvl_host_api {
#define CKVL_FN(name) __typeof__(&name) name;
#include "host_api.def"
#undef CKVL_FN
} ckvl_host_api;

// Finds a symbol by name; NULL if it is not there.
typedef void *(*ckvl_lookup)(void *library, const char *name);

// Fill a table. False: *missing names the first symbol that was not found.
bool ckvl_api_fill(ckvl_api *api, ckvl_lookup lookup, void *library, const char **missing);
bool ckvl_host_api_fill(ckvl_host_api *api, ckvl_lookup lookup, void *library,
                        const char **missing);

#endif
