// Error texts: what was expected and what was found. They live in the object that failed.
#ifndef CKVL_ERROR_H
#define CKVL_ERROR_H

#include <stddef.h>

#include <chunkkv.h>

#define CKVL_ERROR_BYTES 1024

typedef struct ckvl_error {
  char text[CKVL_ERROR_BYTES];
} ckvl_error;

// Writes the text and returns `status`.
ckv_status ckvl_fail(ckvl_error *error, ckv_status status, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

ckv_status ckvl_fail_memory(ckvl_error *error, size_t bytes);

#endif
