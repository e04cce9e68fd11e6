// Stage one on the device: queries and keys to token scores.
#include <algorithm>

#include "host.h"
#include "score_launch.h"
#include "score_prepare.cuh"
#include "stages.h"
#include "workspace.h"

ckv_status ckv_score_device(const ckv_cuda_call *call, ScoreDevice *device) {
  int multiprocessors = 0, major = 0, minor = 0;
  const int d = call->device_index;
  cudaError_t error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, d);
  if (!error) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, d);
  if (!error) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, d);
  device->multiprocessors = multiprocessors;
  device->hopper = major == 9 && minor == 0;
#ifdef CKV_CUDA_NO_WGMMA
  device->hopper = false;
#endif
  return ckv_cuda_check(call, error, "the device's properties");
}

static bool same_layer_shape(const ckv_layer *a, const ckv_layer *b) {
  const ckv_query_view *p = a->queries, *q = b->queries;
  return ckv_same_shape(a->keys, b->keys) && p->dtype == q->dtype &&
         p->num_q_heads == q->num_q_heads && p->window == q->window &&
         p->stride_batch == q->stride_batch && p->stride_head == q->stride_head &&
         p->stride_row == q->stride_row && !p->log_sum_exp == !q->log_sum_exp;
}

int32_t ckv_layers_alike(const ckv_layer *layers, int32_t num_layers) {
  int32_t count = 1;
  while (count < num_layers && same_layer_shape(&layers[0], &layers[count])) count++;
  return count;
}

static bool nothing_to_score(const ckv_layer *layer) {
  return layer->keys->batch == 0 || layer->keys->kv_len == 0;
}

static ckv_status plan_of(const ckv_cuda_call *call, const ckv_params *params,
                          const ckv_layer *layers, int32_t num_layers, ScoreDevice *device,
                          ScorePlan *plan) {
  const ckv_status status = ckv_score_device(call, device);
  if (status) return status;
  if (ckv_score_plan(*device, params, layers, num_layers, plan)) return CKV_OK;
  return ckv_cuda_fail(call, CKV_ERROR_UNSUPPORTED,
                       "Expected head_dim of at most 256 on CUDA but found %d",
                       layers[0].keys->head_dim);
}

ckv_status ckv_cuda_score_bytes(const ckv_cuda_call *call, const ckv_params *params,
                                const ckv_layer *layers, int32_t num_layers, int64_t *bytes) {
  const ckv_layer *last = nullptr;
  const int32_t step = std::max(1, params->layer_reuse);  // the others' queries may be anything
  for (int32_t l = 0; l < num_layers; l += step) {
    if (!layers[l].queries || nothing_to_score(&layers[l])) continue;
    if (last && same_layer_shape(last, &layers[l])) continue;
    last = &layers[l];
    // How many like it will share a launch is not known yet, and fewer can need more: their items
    // are smaller.
    ckv_layer alike[CKV_SCORE_LAYERS];
    std::fill(alike, alike + CKV_SCORE_LAYERS, layers[l]);
    for (int32_t count = std::min(num_layers, CKV_SCORE_LAYERS); count > 0; count--) {
      ScoreDevice device;
      ScorePlan plan;
      const ckv_status status = plan_of(call, params, alike, count, &device, &plan);
      if (status) return status;
      *bytes = std::max(*bytes, plan.end);
    }
  }
  return CKV_OK;
}

static void bind(ScorePlan *plan, const ckv_cuda_call *call, ScoreArgs *args) {
  uint8_t *base = static_cast<uint8_t *>(call->workspace);
  ScoreArgs &a = *args;
  a.fault = reinterpret_cast<uint32_t *>(base);
  uint32_t *counters = reinterpret_cast<uint32_t *>(base + plan->counters);
  a.ticket = counters;
  a.combine_ticket = counters + 1;
  a.pass1_done = counters + 2;
  a.maxima = reinterpret_cast<float2 *>(base + plan->maxima);
  a.log_sum_exp = reinterpret_cast<float *>(base + plan->log_sum_exp);
  a.queries = base + plan->packed;
  a.unit_scale = reinterpret_cast<float *>(base + plan->unit_scale);
  a.partial = reinterpret_cast<float *>(base + plan->partial);
}

cudaError_t ckv_launch_prepare(const ScoreArgs &a, bool bf16, const ckv_layer *layers,
                               cudaStream_t stream) {
  const ckv_query_view *q = layers[0].queries;
  QuerySource source{q->dtype, ckv_query_rows(q, a.keys.num_kv_heads), {}};
  for (int32_t l = 0; l < a.num_layers; l++) {
    source.data[l] = static_cast<const uint8_t *>(layers[l].queries->data);
  }
  const int32_t blocks = a.num_heads * a.row_blocks * a.row_block / (CKV_PREPARE_THREADS / 32);
  return ckv_cuda_launch(
      bf16 ? ckv_score_prepare_kernel<__nv_bfloat16> : ckv_score_prepare_kernel<__half>, blocks,
      CKV_PREPARE_THREADS, 0, stream, a, source);
}

static cudaError_t launch(const ckv_cuda_call *call, const ckv_params *params,
                          const ScoreDevice &device, ScorePlan *plan, const ckv_layer *layers,
                          int32_t count, const ckv_scores *scores) {
  const cudaStream_t stream = ckv_cuda_stream(call);
  const bool per_head = params->method == CKV_METHOD_SNAPKV;
  ScoreArgs a = plan->args;
  a.num_layers = count;
  a.num_heads = count * a.keys.batch * a.keys.num_kv_heads;
  bind(plan, call, &a);
  TokenScores out{};
  for (int32_t l = 0; l < count; l++) {
    out.data[l] = scores[l].data;
    a.layers[l] = {layers[l].keys->data, layers[l].queries->log_sum_exp};
  }
  cudaError_t error = ckv_launch_prepare(a, plan->bf16, layers, stream);
  if (error) return error;
  error = device.hopper ? ckv_launch_wgmma(*plan, a, device.multiprocessors, stream)
                        : ckv_launch_mma(*plan, a, device.multiprocessors, stream);
  if (error) return error;
  const int32_t rows = count * a.keys.batch * (per_head ? a.keys.num_kv_heads : 1);
  const int32_t of_row = (a.keys.kv_len + CKV_PREPARE_THREADS - 1) / CKV_PREPARE_THREADS;
  const int32_t grid = rows * of_row, threads = CKV_PREPARE_THREADS;
  if (per_head) {
    return ckv_cuda_launch(ckv_pool_scores_kernel, grid, threads, 0, stream, a, out,
                           params->pool_size, of_row);
  }
  return params->spread > 1
             ? ckv_cuda_launch(ckv_spread_scores_kernel, grid, threads, 0, stream, a, out,
                               params->spread, of_row)
             : ckv_cuda_launch(ckv_sum_scores_kernel, grid, threads, 0, stream, a, out, of_row);
}

ckv_status ckv_cuda_score(const ckv_cuda_call *call, const ckv_params *params,
                          const ckv_layer *layers, int32_t num_layers, const ckv_scores *scores) {
  for (int32_t first = 0; first < num_layers;) {
    const int32_t alike = ckv_layers_alike(layers + first, num_layers - first);
    if (nothing_to_score(&layers[first])) {
      first += alike;
      continue;
    }
    ScoreDevice device;
    ScorePlan plan;
    ckv_status status = plan_of(call, params, layers + first, alike, &device, &plan);
    if (status) return status;
    if (plan.end > call->workspace_bytes) {
      return ckv_cuda_fail(
          call, CKV_ERROR_OUT_OF_MEMORY, "Expected a workspace of %lld bytes but found %lld",
          static_cast<long long>(plan.end), static_cast<long long>(call->workspace_bytes));
    }
    for (const int32_t end = first + alike; first < end;) {
      const int32_t count = std::min(plan.layers, end - first);
      status = ckv_cuda_check(
          call, launch(call, params, device, &plan, layers + first, count, scores + first),
          "the score kernels to start");
      if (status) return status;
      first += count;
    }
  }
  return CKV_OK;
}
