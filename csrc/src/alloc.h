// Every allocation of the library goes through here.
#ifndef CKV_ALLOC_H
#define CKV_ALLOC_H

#include <stddef.h>

// 64-byte aligned, uninitialised; NULL when memory is out or bytes overflow.
void *ckv_alloc(size_t bytes);
void ckv_free(void *pointer);

#endif
