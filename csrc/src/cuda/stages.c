#include "stages.h"

#include "../kv_view.h"
#include "device.h"

// Keys of which only the scores are at hand: their heads and lengths.
static ckv_kv_view keys_of(const ckv_scores *scores) {
  return (ckv_kv_view){.struct_size = sizeof(ckv_kv_view),
                       .dtype = CKV_F32,
                       .device = CKV_CUDA,
                       .batch = scores->batch,
                       .num_kv_heads = scores->num_heads > 0 ? scores->num_heads : 1,
                       .head_dim = 1,
                       .kv_len = scores->kv_len,
                       .kv_lens = scores->kv_lens};
}

// Makes room for one layer's stages.
static ckv_status reserve(ckv_context *ctx, const ckv_params *params, const ckv_query_view *queries,
                          const ckv_kv_view *keys, ckv_cuda_call *call) {
  const ckv_layer layer = {.struct_size = sizeof layer, .queries = queries, .keys = keys};
  int64_t least, best;
  *call = ckv_cuda_call_of(ctx);
  ckv_status status = ctx->cuda->api->workspace_size(call, params, &layer, 1, &least, &best);
  if (!status) status = ckv_cuda_reserve(ctx, least, least);
  *call = ckv_cuda_call_of(ctx);
  return status;
}

ckv_status ckv_queue_score(ckv_context *ctx, const ckv_params *params,
                           const ckv_query_view *queries, const ckv_kv_view *keys,
                           const ckv_scores *scores) {
  const ckv_layer layer = {.struct_size = sizeof layer, .queries = queries, .keys = keys};
  ckv_cuda_call call;
  const ckv_status status = reserve(ctx, params, queries, keys, &call);
  return status ? status : ctx->cuda->api->score(&call, params, &layer, 1, scores);
}

ckv_status ckv_queue_chunk_scores(ckv_context *ctx, const ckv_params *params,
                                  const ckv_scores *scores, float *chunk_scores) {
  const ckv_kv_view keys = keys_of(scores);
  ckv_cuda_call call;
  const ckv_status status = reserve(ctx, params, NULL, &keys, &call);
  return status ? status : ctx->cuda->api->chunk_scores(&call, params, scores, chunk_scores);
}

ckv_status ckv_queue_select(ckv_context *ctx, const ckv_params *params, const ckv_scores *scores,
                            const ckv_kept *kept) {
  const ckv_kv_view keys = keys_of(scores);
  ckv_cuda_call call;
  const ckv_status status = reserve(ctx, params, NULL, &keys, &call);
  return status ? status : ctx->cuda->api->select(&call, params, scores, 1, kept);
}

ckv_params ckv_moving_params(void) {
  ckv_params params;
  ckv_default_params(&params);
  params.method = CKV_METHOD_FULL;
  params.budget = 1;
  return params;
}

ckv_status ckv_queue_compact(ckv_context *ctx, const ckv_kv_view *src, const ckv_kv_view *dst,
                             const ckv_kept *kept) {
  const ckv_params params = ckv_moving_params();
  ckv_cuda_call call;
  const ckv_status status = reserve(ctx, &params, NULL, src, &call);
  return status ? status : ctx->cuda->api->compact(&call, &src, &dst, &kept, 1);
}
