#include "device.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "../alloc.h"
#include "../cpu.h"
#include "../dispatch.h"
#include "../enter.h"

#define WORKSPACE_ALIGNMENT 256

static ckv_status find_device(int32_t index, const ckv_cuda_api **api, char *text, size_t bytes) {
  const char *why;
  *api = ckv_cuda_load(&why);
  if (!*api) {
    snprintf(text, bytes, "%s", why);
    return CKV_ERROR_UNSUPPORTED;
  }
  const int32_t count = (*api)->device_count(text, bytes);
  if (count <= 0) return CKV_ERROR_UNSUPPORTED;
  if (index >= 0 && index < count) return CKV_OK;
  snprintf(text, bytes, "Expected a CUDA device of 0 to %d but found %d", count - 1, index);
  return CKV_ERROR_INVALID_ARGUMENT;
}

ckv_status ckv_device_describe(int32_t device, int32_t index, char *text, int64_t bytes) {
  if (!text || bytes < 1 || (device != CKV_CPU && device != CKV_CUDA)) {
    return CKV_ERROR_INVALID_ARGUMENT;
  }
  if (device == CKV_CPU) {
    snprintf(text, (size_t)bytes, "CPU, %s", ckv_isa_name(ckv_isa_best()));
    return CKV_OK;
  }
  const ckv_cuda_api *api;
  ckv_status status = find_device(index, &api, text, (size_t)bytes);
  if (status) return status;
  const ckv_cuda_call call = {.device_index = index, .error = text, .error_bytes = (size_t)bytes};
  ckv_cuda_device found;
  status = api->describe(&call, &found);
  if (status) return status;
  snprintf(text, (size_t)bytes,
           "%s, %.1f GiB, compute capability %d.%d, %d multiprocessors, driver for CUDA %d.%d",
           found.name, (double)found.memory_bytes / (1 << 30), found.compute_major,
           found.compute_minor, found.multiprocessors, found.driver_version / 1000,
           found.driver_version % 1000 / 10);
  return CKV_OK;
}

ckv_status ckv_device_find(const void *memory, int32_t *device, int32_t *index) {
  if (!device || !index) return CKV_ERROR_INVALID_ARGUMENT;
  const char *why;
  char text[512];
  const ckv_cuda_api *api = ckv_cuda_load(&why);
  const bool any = api && api->device_count(text, sizeof text) > 0;
  const int32_t found = any ? api->find(memory) : -1;
  *device = found >= 0 ? CKV_CUDA : CKV_CPU;
  *index = found >= 0 ? found : 0;
  return CKV_OK;
}

ckv_status ckv_cuda_open(int32_t index, ckv_cuda **cuda) {
  char why[512];
  const ckv_cuda_api *api;
  const ckv_status status = find_device(index, &api, why, sizeof why);
  if (status) return status;
  *cuda = ckv_alloc(sizeof **cuda);
  if (!*cuda) return CKV_ERROR_OUT_OF_MEMORY;
  **cuda = (ckv_cuda){.api = api, .index = index};
  return CKV_OK;
}

static ckv_cuda_call call_of(const ckv_cuda *cuda, char *error, size_t error_bytes) {
  return (ckv_cuda_call){.stream = cuda->stream,
                         .workspace = cuda->workspace,
                         .workspace_bytes = cuda->workspace_bytes,
                         .device_index = cuda->index,
                         .error = error,
                         .error_bytes = error_bytes};
}

void ckv_cuda_close(ckv_cuda *cuda) {
  if (!cuda) return;
  char ignored[64];
  const ckv_cuda_call call = call_of(cuda, ignored, sizeof ignored);
  if (cuda->owned) {
    cuda->api->synchronize(&call);
    cuda->api->release(&call, cuda->workspace);
  }
  ckv_free(cuda);
}

ckv_cuda_call ckv_cuda_call_of(ckv_context *ctx) {
  return call_of(ctx->cuda, ctx->error, sizeof ctx->error);
}

// A larger workspace takes over what kernels have found so far.
static ckv_status grow(ckv_context *ctx, int64_t bytes) {
  ckv_cuda *cuda = ctx->cuda;
  const ckv_cuda_call before = ckv_cuda_call_of(ctx);
  ckv_cuda_call after = before;
  ckv_status status = cuda->api->allocate(&before, bytes, &after.workspace);
  if (status) return status;
  after.workspace_bytes = bytes;
  status = cuda->api->prepare(&after);
  if (!status && before.workspace) {
    status = cuda->api->copy(&after, after.workspace, before.workspace, sizeof(uint32_t),
                             CKV_CUDA_ON_DEVICE);
    if (!status) status = cuda->api->synchronize(&before);
  }
  if (status) {
    char ignored[64];
    after.error = ignored;
    after.error_bytes = sizeof ignored;
    cuda->api->release(&after, after.workspace);
    return status;
  }
  cuda->workspace = after.workspace;
  cuda->workspace_bytes = bytes;
  cuda->owned = true;
  return before.workspace ? cuda->api->release(&before, before.workspace) : CKV_OK;
}

ckv_status ckv_cuda_reserve(ckv_context *ctx, int64_t least, int64_t best) {
  const ckv_cuda *cuda = ctx->cuda;
  if (!cuda->workspace || cuda->owned) {
    if (cuda->workspace_bytes >= best) return CKV_OK;
    const ckv_status status = grow(ctx, best);
    if (status != CKV_ERROR_OUT_OF_MEMORY || best == least) return status;
    return cuda->workspace_bytes >= least ? CKV_OK : grow(ctx, least);
  }
  if (cuda->workspace_bytes >= least) return CKV_OK;
  return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT,
                  "Expected a workspace of at least %lld bytes but found %lld", (long long)least,
                  (long long)cuda->workspace_bytes);
}

ckv_status ckv_cuda_expect(ckv_context *ctx) {
  if (ctx->cuda) return CKV_OK;
  return ckv_fail(ctx, CKV_ERROR_UNSUPPORTED,
                  "Expected a context of CUDA but found one of the CPU");
}

static ckv_status set_stream(ckv_context *ctx, void *stream) {
  const ckv_status status = ckv_cuda_expect(ctx);
  if (!status) ctx->cuda->stream = stream;
  return status;
}

ckv_status ckv_context_set_stream(ckv_context *context, void *stream) {
  CKV_ENTRY(context, set_stream(context, stream));
}

static ckv_status set_workspace(ckv_context *ctx, void *memory, int64_t bytes) {
  ckv_status status = ckv_cuda_expect(ctx);
  if (status) return status;
  if ((memory == NULL) != (bytes == 0) || bytes < 0 ||
      (uintptr_t)memory % WORKSPACE_ALIGNMENT != 0) {
    return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT,
                    "Expected a workspace of some bytes at a multiple of %d, or NULL and 0, but "
                    "found %lld bytes at %p",
                    WORKSPACE_ALIGNMENT, (long long)bytes, memory);
  }
  ckv_cuda *cuda = ctx->cuda;
  ckv_cuda_call call = ckv_cuda_call_of(ctx);
  if (memory) {
    call.workspace = memory;
    call.workspace_bytes = bytes;
    status = cuda->api->prepare(&call);
    if (status) return status;
  }
  const ckv_cuda_call before = ckv_cuda_call_of(ctx);
  const bool owned = cuda->owned;
  cuda->workspace = memory;
  cuda->workspace_bytes = bytes;
  cuda->owned = false;
  if (!owned) return CKV_OK;
  // What the old one has found is said now: it is gone after this.
  status = cuda->api->fault(&before);
  const ckv_status released = cuda->api->release(&before, before.workspace);
  return status ? status : released;
}

ckv_status ckv_context_set_workspace(ckv_context *context, void *memory, int64_t bytes) {
  CKV_ENTRY(context, set_workspace(context, memory, bytes));
}

static ckv_status finish(ckv_context *ctx) {
  if (!ctx->cuda) return CKV_OK;
  const ckv_cuda_call call = ckv_cuda_call_of(ctx);
  return ctx->cuda->api->fault(&call);
}

ckv_status ckv_context_finish(ckv_context *context) { CKV_ENTRY(context, finish(context)); }
