#include "alloc.h"

#include <stdint.h>
#include <stdlib.h>
#if defined(_WIN32)
#  include <malloc.h>
#endif

#define CKV_ALIGNMENT 64

void *ckv_alloc(size_t bytes) {
  if (bytes > SIZE_MAX - CKV_ALIGNMENT) return NULL;
  const size_t rounded = (bytes + CKV_ALIGNMENT - 1) / CKV_ALIGNMENT * CKV_ALIGNMENT;
  const size_t size = rounded ? rounded : CKV_ALIGNMENT;
#if defined(_WIN32)
  return _aligned_malloc(size, CKV_ALIGNMENT);
#else
  return aligned_alloc(CKV_ALIGNMENT, size);
#endif
}

void ckv_free(void *pointer) {
#if defined(_WIN32)
  _aligned_free(pointer);
#else
  free(pointer);
#endif
}
