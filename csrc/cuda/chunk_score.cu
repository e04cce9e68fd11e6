// Chunk scores on the device without token scores, where one pass over the keys is enough; else by way of
// them.
#include <algorithm>

#include "chunk_finish.cuh"
#include "host.h"
#include "score_launch.h"
#include "select.h"
#include "workspace.h"

static bool has_rows(const ckv_layer *layer) {
  return layer->queries && layer->keys->batch > 0 && layer->keys->kv_len > 0;
}

static ckv_status plan_of(const ckv_cuda_call *call, const ckv_params *params,
                          const ckv_layer *layers, int32_t num_layers, ScoreDevice *device,
                          ChunkPlan *plan, bool *one_pass) {
  const ckv_status status = ckv_score_device(call, device);
  *one_pass = !status && has_rows(layers) && ckv_layers_alike(layers, num_layers) == num_layers &&
              ckv_chunk_plan(*device, params, layers, num_layers, plan);
  return status;
}

ckv_status ckv_cuda_chunk_bytes(const ckv_cuda_call *call, const ckv_params *params,
                                const ckv_layer *layers, int32_t num_layers, int64_t *bytes) {
  ScoreDevice device;
  const ckv_status status = ckv_score_device(call, &device);
  if (status) return status;
  const int32_t step = std::max(1, params->layer_reuse);
  const int32_t leaders = (num_layers + step - 1) / step;
  for (int32_t l = 0; l < num_layers; l += step) {
    if (!has_rows(&layers[l])) continue;
    // As if all were like it, and aligned: sizes count alone.
    ckv_kv_view keys = *layers[l].keys;
    keys.data = nullptr;
    ckv_layer like = layers[l];
    like.keys = &keys;
    ChunkPlan plan;
    if (!ckv_chunk_plan(device, params, &like, 1, &plan)) continue;
    ckv_chunk_room(device, leaders, CKV_CHUNK_LAYERS, &plan);
    *bytes = std::max(*bytes, plan.end);
  }
  return CKV_OK;
}

// What a launch of `count` layers from `first` on works on.
static void bind(const ckv_cuda_call *call, const ChunkPlan &plan, int32_t first,
                 const ckv_layer *layers, int32_t count, ChunkArgs *args) {
  uint8_t *base = static_cast<uint8_t *>(call->workspace);
  ScoreArgs &a = args->score;
  const int64_t unit = first * plan.units_of_layer, row = unit * CKV_CHUNK_ROWS;
  uint32_t *counters = reinterpret_cast<uint32_t *>(base + plan.counters);
  a.fault = reinterpret_cast<uint32_t *>(base);
  a.ticket = counters;
  a.combine_ticket = counters + 1;
  a.pass1_done = counters + 2;
  a.maxima = reinterpret_cast<float2 *>(base + plan.maxima);
  a.log_sum_exp = reinterpret_cast<float *>(base + plan.log_sum_exp) + row;
  if (!plan.own_queries) {
    a.unit_scale = reinterpret_cast<float *>(base + plan.unit_scale) + unit;
    a.queries = base + plan.packed + row * a.packed_dim * 2;
  }
  args->sums = reinterpret_cast<float4 *>(base + plan.sums);
  args->bases = reinterpret_cast<float *>(base + plan.bases);
  for (int32_t l = 0; l < count; l++) a.layers[l] = {layers[l].keys->data, nullptr};
}

// Before the pass where there is nothing to pack. Once it has begun, what came before it is done.
static __global__ void clear_kernel(uint32_t *counters, int32_t count) {
  ckv_wait_for_previous();
  ckv_let_next_start();
  for (int32_t i = threadIdx.x; i < count; i += blockDim.x) counters[i] = 0;
}

static cudaError_t prepare(const ChunkPlan &plan, const ScoreArgs &a, const ckv_layer *layers,
                           cudaStream_t stream) {
  if (!plan.own_queries) return ckv_launch_prepare(a, plan.score.bf16, layers, stream);
  return ckv_cuda_launch(clear_kernel, 1, CKV_FINISH_THREADS, 0, stream, a.pass1_done,
                         a.num_heads * a.row_blocks);
}

static cudaError_t launch(const ChunkPlan &plan, const ChunkArgs &args, const ChunkMaps &maps,
                          const ckv_layer *layers, const ChunkScores &out, bool mean,
                          cudaStream_t stream) {
  cudaError_t error = prepare(plan, args.score, layers, stream);
  if (!error) error = ckv_launch_chunks(plan, args, maps, stream);
  if (error) return error;
  const int64_t groups = args.tiles / args.parts;
  return ckv_cuda_launch(ckv_chunk_finish_kernel,
                         groups * args.score.num_layers * args.score.keys.batch, CKV_FINISH_THREADS,
                         0, stream, args, out, mean ? 1 : 0);
}

// chunks(l): where the scores of layer l go. *done: whether they do; if not nothing is queued.
template <typename Chunks>
static ckv_status score_in_one_pass(const ckv_cuda_call *call, const ckv_params *params,
                                    const ckv_layer *layers, int32_t num_layers, Chunks chunks,
                                    ChunkPlan *plan, bool *done) {
  ScoreDevice device;
  ckv_status status = plan_of(call, params, layers, num_layers, &device, plan, done);
  if (!*done) return status;
  while (plan->end > call->workspace_bytes && plan->layers > 1) {
    ckv_chunk_room(device, num_layers, plan->layers - 1, plan);
  }
  *done = plan->end <= call->workspace_bytes;
  if (!*done) return CKV_OK;
  for (int32_t first = 0, count; first < num_layers && !status; first += count) {
    count = std::min(plan->layers, num_layers - first);
    ChunkArgs args;
    ChunkMaps maps;
    ckv_chunk_cut(*plan, device, count, &args);
    bind(call, *plan, first, layers + first, count, &args);
    if (!ckv_chunk_maps(plan->score, args, layers + first, &maps)) {  // the first layer's, if any
      *done = first > 0;
      return *done ? ckv_cuda_fail(call, CKV_ERROR_UNSUPPORTED,
                                   "Expected the driver to describe keys as it did before")
                   : CKV_OK;
    }
    ChunkScores out{};
    for (int32_t l = 0; l < count; l++) out.data[l] = chunks(first + l);
    status = ckv_cuda_check(call,
                            launch(*plan, args, maps, layers + first, out,
                                   params->chunk_reduce == CKV_REDUCE_MEAN, ckv_cuda_stream(call)),
                            "the chunk score kernels to start");
  }
  return status;
}

ckv_status ckv_cuda_score_chunks(const ckv_cuda_call *call, const ckv_params *params,
                                 const ckv_layer *layer, const ckv_scores *scores,
                                 float *chunk_scores) {
  ChunkPlan plan;
  bool done = false;
  ckv_status status = score_in_one_pass(
      call, params, layer, 1, [&](int32_t) { return chunk_scores; }, &plan, &done);
  if (status || done) return status;
  status = ckv_cuda_score(call, params, layer, 1, scores);
  return status ? status : ckv_cuda_chunk_scores(call, params, scores, chunk_scores);
}

ckv_status ckv_cuda_choose(const ckv_cuda_call *call, const ckv_params *params,
                           const ckv_layer *layers, int32_t num_layers, const ckv_scores *scores,
                           const ckv_kept *kept) {
  ChunkPlan plan;
  bool done = false;
  ckv_status status = score_in_one_pass(
      call, params, layers, num_layers, [&](int32_t l) { return scores[l].data; }, &plan, &done);
  if (status) return status;
  if (!done) {
    status = ckv_cuda_score(call, params, layers, num_layers, scores);
    return status ? status : ckv_cuda_select(call, params, scores, num_layers, kept);
  }
  ChunkArgs args = plan.args;
  bind(call, plan, 0, layers, 0, &args);
  const ScoreArgs &a = args.score;
  TokenSource tokens{};
  tokens.keys = a.keys;
  tokens.rows = a.rows;
  tokens.row_block = a.row_block;
  tokens.row_blocks = a.row_blocks;
  tokens.packed_dim = a.packed_dim;
  tokens.bf16 = plan.score.bf16;
  tokens.logit_scale = a.logit_scale;
  tokens.cap = a.cap;
  tokens.cap_scale = a.cap_scale;
  tokens.queries = a.queries;
  tokens.query_rows = ckv_query_rows(layers[0].queries, a.keys.num_kv_heads);
  tokens.unit_scale = a.unit_scale;
  tokens.log_sum_exp = a.log_sum_exp;
  return ckv_cuda_select_from(call, params, scores, num_layers, kept, &tokens, layers);
}
