// A libchunkkv_cuda whose device is the CPU: what is around the kernels is tested where no GPU is.
// "Device" memory is malloc's, work is done at once, and faults wait for the end like a GPU's.
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/cuda/cuda_api.h"

#define HEADER_BYTES 4096
#define STAGE_BYTES 12345  // what a stage asks for beyond the header: not a round number
#define BEST_BYTES 54321   // and what it would like to have
#define MAX_INDEX 1

enum fault_bit { FAULT_NUMERIC = 1, FAULT_BOUNDS = 2 };

static ckv_status fail(const ckv_cuda_call *call, ckv_status status, const char *text) {
  snprintf(call->error, call->error_bytes, "%s", text);
  return status;
}

static int32_t device_count(char *error, size_t error_bytes) {
  if (!getenv("CHUNKKV_FAKE_NO_DEVICE")) return MAX_INDEX;
  snprintf(error, error_bytes, "Expected a device but found none");
  return -1;
}

static ckv_status describe(const ckv_cuda_call *call, ckv_cuda_device *device) {
  (void)call;
  *device = (ckv_cuda_device){.name = "No GPU at all",
                              .memory_bytes = 1ll << 34,
                              .compute_major = 9,
                              .multiprocessors = 1,
                              .driver_version = 13000};
  return CKV_OK;
}

// All memory is the device's, but NULL.
static int32_t find(const void *memory) { return memory ? 0 : -1; }

// Allocations that succeed before the device's memory is out: CHUNKKV_FAKE_ALLOCATIONS, else all.
static bool is_full(void) {
  static char last[16];
  static long made;
  const char *most = getenv("CHUNKKV_FAKE_ALLOCATIONS");
  if (!most || !*most || strcmp(most, last) != 0) made = 0;
  snprintf(last, sizeof last, "%s", most ? most : "");
  return most && *most && ++made > strtol(most, NULL, 10);
}

// The largest block that there is memory for: CHUNKKV_FAKE_LARGEST, else plenty.
static int64_t largest(void) {
  const char *bytes = getenv("CHUNKKV_FAKE_LARGEST");
  return bytes && *bytes ? strtoll(bytes, NULL, 10) : 1ll << 34;
}

static ckv_status allocate(const ckv_cuda_call *call, int64_t bytes, void **memory) {
  *memory = is_full() || bytes > largest()
                ? NULL
                : aligned_alloc(256, (size_t)((bytes + 255) / 256 * 256));
  if (!*memory) return fail(call, CKV_ERROR_OUT_OF_MEMORY, "Expected memory but found none");
  memset(*memory, 0xcc, (size_t)bytes);
  return CKV_OK;
}

static ckv_status release(const ckv_cuda_call *call, void *memory) {
  (void)call;
  free(memory);
  return CKV_OK;
}

static ckv_status copy(const ckv_cuda_call *call, void *to, const void *from, int64_t bytes,
                       int32_t kind) {
  (void)call;
  (void)kind;
  memmove(to, from, (size_t)bytes);
  return CKV_OK;
}

static ckv_status synchronize(const ckv_cuda_call *call) {
  (void)call;
  return CKV_OK;
}

static ckv_status workspace_size(const ckv_cuda_call *call, const ckv_params *params,
                                 const ckv_layer *layers, int32_t num_layers, int64_t *least,
                                 int64_t *best) {
  (void)params;
  (void)layers;
  if (num_layers < 1) return fail(call, CKV_ERROR_INVALID_ARGUMENT, "Expected layers");
  *least = HEADER_BYTES + STAGE_BYTES;
  *best = HEADER_BYTES + BEST_BYTES;
  return CKV_OK;
}

static ckv_status prepare(const ckv_cuda_call *call) {
  if (call->workspace_bytes < HEADER_BYTES) {
    return fail(call, CKV_ERROR_INVALID_ARGUMENT, "Expected room for a header");
  }
  memset(call->workspace, 0, HEADER_BYTES);
  return CKV_OK;
}

static uint32_t *fault_of(const ckv_cuda_call *call) { return call->workspace; }

// A stage owns all that it is given; what others left there is lost.
static ckv_context *begin(const ckv_cuda_call *call, ckv_status *status) {
  *status = CKV_OK;
  if (!call->workspace || call->workspace_bytes < HEADER_BYTES + STAGE_BYTES) {
    *status = fail(call, CKV_ERROR_OUT_OF_MEMORY, "Expected the workspace that was asked for");
    return NULL;
  }
  memset((char *)call->workspace + HEADER_BYTES, 0xee,
         (size_t)(call->workspace_bytes - HEADER_BYTES));
  if (*fault_of(call)) return NULL;
  ckv_context_params params;
  ckv_context_default_params(&params);
  params.num_threads = 1;
  ckv_context *context = NULL;
  *status = ckv_context_create(&params, &context);
  return context;
}

// What a kernel would find is left for the end; all else the host should have refused.
static ckv_status end(const ckv_cuda_call *call, ckv_context *context, ckv_status status,
                      bool kept) {
  if (status == CKV_ERROR_NUMERIC) *fault_of(call) |= FAULT_NUMERIC;
  if (status == CKV_ERROR_OUT_OF_BOUNDS || (kept && status == CKV_ERROR_INVALID_ARGUMENT)) {
    *fault_of(call) |= FAULT_BOUNDS;
  }
  if (status && !*fault_of(call)) fail(call, status, ckv_context_error(context));
  const bool found = *fault_of(call) != 0;
  ckv_context_free(context);
  return found ? CKV_OK : status;
}

static ckv_kv_view on_cpu(const ckv_kv_view *view) {
  ckv_kv_view v = *view;
  v.device = CKV_CPU;
  return v;
}

static ckv_status score(const ckv_cuda_call *call, const ckv_params *params,
                        const ckv_layer *layers, int32_t num_layers, const ckv_scores *scores) {
  ckv_status status;
  ckv_context *context = begin(call, &status);
  if (!context) return status;
  for (int32_t l = 0; l < num_layers && !status; l++) {
    const ckv_kv_view keys = on_cpu(layers[l].keys);
    ckv_query_view queries = *layers[l].queries;
    queries.device = CKV_CPU;
    ckv_scores out = scores[l];
    status = ckv_score(context, params, &queries, &keys, &out);
  }
  return end(call, context, status, false);
}

static ckv_status chunk_scores(const ckv_cuda_call *call, const ckv_params *params,
                               const ckv_scores *scores, float *out) {
  ckv_status status;
  ckv_context *context = begin(call, &status);
  if (!context) return status;
  status = ckv_chunk_scores(context, params, scores, out, INT64_MAX);
  return end(call, context, status, false);
}

static ckv_status score_chunks(const ckv_cuda_call *call, const ckv_params *params,
                               const ckv_layer *layer, const ckv_scores *scores, float *out) {
  const ckv_status status = score(call, params, layer, 1, scores);
  return status ? status : chunk_scores(call, params, scores, out);
}

static ckv_status pick(const ckv_cuda_call *call, const ckv_params *params,
                       const ckv_scores *scores, int32_t num_layers, const ckv_kept *kept) {
  ckv_status status;
  ckv_context *context = begin(call, &status);
  if (!context) return status;
  for (int32_t l = 0; l < num_layers && !status; l++) {
    ckv_kept out = kept[l];
    status = ckv_select(context, params, &scores[l], &out);
  }
  return end(call, context, status, false);
}

static ckv_status choose(const ckv_cuda_call *call, const ckv_params *params,
                         const ckv_layer *layers, int32_t num_layers, const ckv_scores *scores,
                         const ckv_kept *kept) {
  const ckv_status status = score(call, params, layers, num_layers, scores);
  return status ? status : pick(call, params, scores, num_layers, kept);
}

static ckv_status compact(const ckv_cuda_call *call, const ckv_kv_view *const *src,
                          const ckv_kv_view *const *dst, const ckv_kept *const *kept,
                          int32_t num_views) {
  ckv_status status;
  ckv_context *context = begin(call, &status);
  if (!context) return status;
  for (int32_t v = 0; v < num_views && !status; v++) {
    const ckv_kv_view from = on_cpu(src[v]), to = on_cpu(dst[v]);
    status = ckv_compact(context, &from, src[v] == dst[v] ? NULL : &to, kept[v]);
  }
  return end(call, context, status, true);
}

static ckv_status fault(const ckv_cuda_call *call) {
  const uint32_t bits = call->workspace ? *fault_of(call) : 0;
  if (bits == 0) return CKV_OK;
  *fault_of(call) = 0;
  if (bits & FAULT_BOUNDS) return fail(call, CKV_ERROR_OUT_OF_BOUNDS, "Expected entries inside");
  return fail(call, CKV_ERROR_NUMERIC, "Expected numbers but found NaN");
}

__attribute__((visibility("default"))) const ckv_cuda_api *ckv_cuda_api_get(uint32_t version) {
  static const ckv_cuda_api API = {
      .version = CKV_CUDA_API_VERSION,
      .struct_size = sizeof(ckv_cuda_api),
      .device_count = device_count,
      .describe = describe,
      .find = find,
      .allocate = allocate,
      .release = release,
      .copy = copy,
      .synchronize = synchronize,
      .workspace_size = workspace_size,
      .prepare = prepare,
      .score = score,
      .chunk_scores = chunk_scores,
      .score_chunks = score_chunks,
      .select = pick,
      .choose = choose,
      .compact = compact,
      .fault = fault,
  };
  return version == CKV_CUDA_API_VERSION ? &API : NULL;
}
