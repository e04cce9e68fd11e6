// The engine inside the host program, found at run time: this library refers to no symbol of it.
#ifndef CKVP_HOST_H
#define CKVP_HOST_H

#include "llama_api.h"

typedef struct ckvp_host {
  ckvl_api api;
#define CKVL_FN(name) __typeof__(&name) name;
#define CKVP_OPTIONAL(name) __typeof__(&name) name;
#include "preload_api.def"
#undef CKVL_FN
#undef CKVP_OPTIONAL
  bool is_complete;  // else `missing` names what this release lacks
  const char *missing;
} ckvp_host;

// NULL: there is no libllama in this process (yet). What is found stays.
const ckvp_host *ckvp_host_get(void);

#endif
