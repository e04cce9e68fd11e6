// Memory that is used again from call to call and becomes larger where that is needed.
#ifndef CKVL_GROW_H
#define CKVL_GROW_H

#include <stddef.h>
#include <stdlib.h>

// At least `bytes`; what was in it is lost if it had to grow. NULL and a capacity of 0: no memory.
static inline void *ckvl_grow(void *memory, size_t *capacity, size_t bytes) {
  if (bytes <= *capacity) return memory;
  free(memory);
  *capacity = bytes;
  memory = malloc(bytes);
  if (!memory) *capacity = 0;
  return memory;
}

#endif
