// A shared library opened at run time.
#ifndef CKVL_LIBRARY_H
#define CKVL_LIBRARY_H

#include <stddef.h>

// NULL on failure: then `error` says why. Never closed: the engine's threads and log callbacks
// outlive any owner.
void *ckvl_library_open(const char *path, char *error, size_t error_bytes);

// Also finds what the library itself was linked with.
void *ckvl_library_symbol(void *library, const char *name);

#endif
