// Device memory for hosts without a CUDA runtime of their own.
#include "../enter.h"
#include "device.h"

static ckv_status expect_bytes(ckv_context *ctx, int64_t bytes) {
  ckv_status status = ckv_cuda_expect(ctx);
  if (!status && bytes < 0) {
    status = ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT, "Expected at least 0 bytes but found %lld",
                      (long long)bytes);
  }
  return status;
}

static ckv_status allocate(ckv_context *ctx, int64_t bytes, void **memory) {
  if (!memory) {
    return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT, "Expected where to put memory but found NULL");
  }
  *memory = NULL;
  const ckv_status status = expect_bytes(ctx, bytes);
  if (status) return status;
  const ckv_cuda_call call = ckv_cuda_call_of(ctx);
  return ctx->cuda->api->allocate(&call, bytes > 0 ? bytes : 1, memory);
}

ckv_status ckv_device_alloc(ckv_context *context, int64_t bytes, void **memory) {
  CKV_ENTRY(context, allocate(context, bytes, memory));
}

static ckv_status release(ckv_context *ctx, void *memory) {
  const ckv_status status = ckv_cuda_expect(ctx);
  if (status || !memory) return status;
  const ckv_cuda_call call = ckv_cuda_call_of(ctx);
  return ctx->cuda->api->release(&call, memory);
}

ckv_status ckv_device_free(ckv_context *context, void *memory) {
  CKV_ENTRY(context, release(context, memory));
}

static ckv_status copy(ckv_context *ctx, void *to, const void *from, int64_t bytes, int32_t kind) {
  const ckv_status status = expect_bytes(ctx, bytes);
  if (status) return status;
  if (kind < CKV_COPY_TO_DEVICE || kind > CKV_COPY_ON_DEVICE) {
    return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT,
                    "Expected kind to be 0 (to device), 1 (to host) or 2 (on device) but found %d",
                    kind);
  }
  if (bytes == 0) return CKV_OK;
  if (!to || !from) {
    return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT, "Expected memory to copy %s but found NULL",
                    to ? "from" : "to");
  }
  const ckv_cuda_call call = ckv_cuda_call_of(ctx);
  const ckv_status copied = ctx->cuda->api->copy(&call, to, from, bytes, kind);
  if (copied || kind == CKV_COPY_ON_DEVICE) return copied;
  return ctx->cuda->api->synchronize(&call);
}

ckv_status ckv_device_copy(ckv_context *context, void *to, const void *from, int64_t bytes,
                           int32_t kind) {
  CKV_ENTRY(context, copy(context, to, from, bytes, kind));
}
