// A context serves one call at a time: every entry point that can fail takes it and gives it back.
#ifndef CKV_ENTER_H
#define CKV_ENTER_H

#include "context.h"

static inline ckv_status ckv_enter(ckv_context *ctx) {
  if (!ctx) return CKV_ERROR_INVALID_ARGUMENT;
  if (atomic_flag_test_and_set_explicit(&ctx->busy, memory_order_acquire)) return CKV_ERROR_BUSY;
  ctx->error[0] = '\0';
  return CKV_OK;
}

static inline ckv_status ckv_leave(ckv_context *ctx, ckv_status status) {
  atomic_flag_clear_explicit(&ctx->busy, memory_order_release);
  return status;
}

// One entry point = one checked function; the context is taken around it.
#define CKV_ENTRY(ctx, call)                   \
  do {                                         \
    const ckv_status entered = ckv_enter(ctx); \
    if (entered) return entered;               \
    return ckv_leave(ctx, call);               \
  } while (0)

#endif
