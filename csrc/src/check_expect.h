// How checks say no, and the small ones that several views share.
#ifndef CKV_CHECK_EXPECT_H
#define CKV_CHECK_EXPECT_H

#include "check.h"
#include "dtype.h"

#define EXPECT(condition, ...) \
  if (!(condition)) return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT, __VA_ARGS__)

// The struct_size rule is the same for every struct.
#define EXPECT_STRUCT(pointer, name)                                                  \
  do {                                                                                \
    EXPECT(pointer, "Expected %s but found NULL", name);                              \
    EXPECT((pointer)->struct_size == sizeof *(pointer),                               \
           "Expected %s.struct_size to be %zu but found %u", name, sizeof *(pointer), \
           (unsigned)(pointer)->struct_size);                                         \
  } while (0)

// Lengths in 0 to kv_len; those on a device are its kernels' to look at.
ckv_status ckv_check_lens(ckv_context *ctx, const char *name, const int32_t *lens, int32_t batch,
                          int32_t kv_len);

// A pointer or a stride of device memory is a multiple of its element: kernels load no less.
ckv_status ckv_check_aligned(ckv_context *ctx, const char *name, const char *field, uint64_t value,
                             int64_t bytes);

// Adds (count - 1) * stride to *end; false on overflow or a negative stride.
bool ckv_extend(int64_t *end, int64_t count, int64_t stride);

#endif
