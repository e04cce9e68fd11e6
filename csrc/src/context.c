#include "context.h"

#include <stdio.h>
#include <string.h>

#include "alloc.h"
#include "check.h"
#include "cuda/device.h"
#include "dispatch.h"

ckv_status ckv_fail(ckv_context *ctx, ckv_status status, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(ctx->error, sizeof ctx->error, format, args);
  va_end(args);
  return status;
}

void *ckv_scratch_get(ckv_context *ctx, ckv_scratch_slot slot, size_t bytes) {
  ckv_scratch *scratch = &ctx->scratch[slot];
  if (scratch->bytes >= bytes && scratch->data) return scratch->data;
  ckv_free(scratch->data);
  scratch->bytes = 0;
  scratch->data = ckv_alloc(bytes);
  if (!scratch->data) {
    ckv_fail(ctx, CKV_ERROR_OUT_OF_MEMORY, "Expected %zu bytes of scratch memory but found none",
             bytes);
    return NULL;
  }
  scratch->bytes = bytes;
  return scratch->data;
}

void ckv_context_default_params(ckv_context_params *params) {
  if (!params) return;
  memset(params, 0, sizeof *params);
  params->struct_size = sizeof *params;
  params->isa = CKV_ISA_BEST;
}

ckv_status ckv_context_create(const ckv_context_params *params, ckv_context **context) {
  if (!context) return CKV_ERROR_INVALID_ARGUMENT;
  *context = NULL;
  if (!params || params->struct_size != sizeof *params || params->reserved != 0 ||
      params->num_threads < 0 || params->num_threads > CKV_MAX_THREADS ||
      (params->device != CKV_CPU && params->device != CKV_CUDA) || params->device_index < 0 ||
      (params->device == CKV_CPU && params->device_index != 0)) {
    return CKV_ERROR_INVALID_ARGUMENT;
  }
  const int32_t isa = params->isa == CKV_ISA_BEST ? ckv_isa_best() : params->isa;
  if (!ckv_isa_name(isa)) return CKV_ERROR_INVALID_ARGUMENT;
  if (!ckv_isa_usable(isa)) return CKV_ERROR_UNSUPPORTED;

  ckv_context *ctx = ckv_alloc(sizeof *ctx);
  if (!ctx) return CKV_ERROR_OUT_OF_MEMORY;
  memset(ctx, 0, sizeof *ctx);
  atomic_flag_clear(&ctx->busy);
  ctx->isa = isa;
  ctx->device = params->device;
  ckv_status status = CKV_OK;
  if (ctx->device == CKV_CUDA) status = ckv_cuda_open(params->device_index, &ctx->cuda);
  if (!status) {
    ctx->pool = ckv_thread_pool_create(ctx->device == CKV_CPU ? params->num_threads : 1);
    if (!ctx->pool) status = CKV_ERROR_OUT_OF_MEMORY;
  }
  if (status) {
    ckv_context_free(ctx);
    return status;
  }
  *context = ctx;
  return CKV_OK;
}

void ckv_context_free(ckv_context *context) {
  if (!context) return;
  ckv_cuda_close(context->cuda);
  ckv_thread_pool_free(context->pool);
  for (int32_t slot = 0; slot < CKV_SCRATCH_COUNT; slot++) ckv_free(context->scratch[slot].data);
  ckv_free(context);
}

const char *ckv_context_error(const ckv_context *context) {
  return context ? context->error : "Expected a context but found NULL";
}

int32_t ckv_context_isa(const ckv_context *context) { return context ? context->isa : -1; }

int32_t ckv_context_device(const ckv_context *context) { return context ? context->device : -1; }

int32_t ckv_context_num_threads(const ckv_context *context) {
  return context ? ckv_thread_pool_size(context->pool) : 0;
}
