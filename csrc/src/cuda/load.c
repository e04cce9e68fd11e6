// dladdr is not in POSIX.
#if !defined(_GNU_SOURCE)
#  define _GNU_SOURCE
#endif
#include "load.h"

#include <stdbool.h>

#if !defined(__linux__)

const ckv_cuda_api *ckv_cuda_load(const char **error) {
  *error = "Expected Linux, which CUDA is built for, but found another system";
  return NULL;
}

#else

#  include <dlfcn.h>
#  include <pthread.h>
#  include <stdio.h>
#  include <stdlib.h>
#  include <string.h>

#  define LIBRARY "libchunkkv_cuda.so"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const ckv_cuda_api *table;
static char failure[512];

// The file that CHUNKKV_CUDA_LIBRARY names, or the one beside this library.
static bool find_path(char *path, size_t bytes) {
  // Not in programs with another user's rights: what the variable names is run.
  const char *named = secure_getenv("CHUNKKV_CUDA_LIBRARY");
  int written = -1;
  if (named && *named) {
    written = snprintf(path, bytes, "%s", named);
  } else {
    Dl_info self;
    if (!dladdr((const void *)&once, &self) || !self.dli_fname) return false;
    const char *slash = strrchr(self.dli_fname, '/');
    const int folder = slash ? (int)(slash + 1 - self.dli_fname) : 0;
    written = snprintf(path, bytes, "%.*s%s", folder, self.dli_fname, LIBRARY);
  }
  return written > 0 && (size_t)written < bytes;
}

static void open_library(void) {
  char path[4096];
  if (!find_path(path, sizeof path)) {
    snprintf(failure, sizeof failure, "Expected a folder to look for %s in but found none",
             LIBRARY);
    return;
  }
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char *found = dlerror();
    snprintf(failure, sizeof failure,
             "Expected " LIBRARY
             " beside libchunkkv or named in CHUNKKV_CUDA_LIBRARY but found: %s",
             found ? found : "no reason");
    return;
  }
  // The address of a function in a pointer to data: what dlsym is for, and C has no cast for.
  void *symbol = dlsym(library, CKV_CUDA_API_SYMBOL);
  ckv_cuda_api_getter getter = NULL;
  memcpy(&getter, &symbol, sizeof getter);
  const ckv_cuda_api *found = getter ? getter(CKV_CUDA_API_VERSION) : NULL;
  if (found && found->version == CKV_CUDA_API_VERSION && found->struct_size == sizeof *found) {
    table = found;
    return;
  }
  snprintf(failure, sizeof failure,
           "Expected a " LIBRARY " of the same build (interface %d) but found another at %.300s",
           CKV_CUDA_API_VERSION, path);
  dlclose(library);
}

const ckv_cuda_api *ckv_cuda_load(const char **error) {
  pthread_once(&once, open_library);
  *error = failure;
  return table;
}

#endif
