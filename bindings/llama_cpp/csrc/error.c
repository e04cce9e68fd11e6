#include "error.h"

#include <stdarg.h>
#include <stdio.h>

ckv_status ckvl_fail(ckvl_error *error, ckv_status status, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(error->text, sizeof error->text, format, args);
  va_end(args);
  return status;
}

ckv_status ckvl_fail_memory(ckvl_error *error, size_t bytes) {
  return ckvl_fail(error, CKV_ERROR_OUT_OF_MEMORY, "Expected %zu bytes of memory but found none",
                   bytes);
}
