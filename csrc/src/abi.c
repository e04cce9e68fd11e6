// The entry points of chunkkv.h: check, then run one stage.
#include <string.h>

#include "check.h"
#include "check_expect.h"
#include "compact/compact.h"
#include "compress.h"
#include "cuda/stages.h"
#include "enter.h"
#include "kv_view.h"
#include "score/accumulate.h"
#include "score/score.h"
#include "select/chunk_scores.h"
#include "select/methods/method.h"
#include "select/select.h"

#define CKV_VERSION_STRING "0.1.0"

uint32_t ckv_abi_version(void) { return CKV_ABI_VERSION; }

const char *ckv_version(void) { return CKV_VERSION_STRING; }

const char *ckv_status_name(int32_t status) {
  static const char *const NAMES[] = {
      [CKV_OK] = "ok",
      [CKV_ERROR_INVALID_ARGUMENT] = "invalid_argument",
      [CKV_ERROR_OUT_OF_MEMORY] = "out_of_memory",
      [CKV_ERROR_UNSUPPORTED] = "unsupported",
      [CKV_ERROR_OUT_OF_BOUNDS] = "out_of_bounds",
      [CKV_ERROR_NUMERIC] = "numeric",
      [CKV_ERROR_BUSY] = "busy",
      [CKV_ERROR_ENGINE] = "engine",
      [CKV_ERROR_CANCELLED] = "cancelled",
  };
  return status >= 0 && status < (int32_t)(sizeof NAMES / sizeof NAMES[0]) ? NAMES[status] : NULL;
}

void ckv_default_params(ckv_params *params) {
  if (!params) return;
  *params = (ckv_params){
      .struct_size = sizeof *params,
      .method = CKV_METHOD_CHUNKKV,
      .window = 32,
      .chunk_size = 10,
      .chunk_reduce = CKV_REDUCE_SUM,
      .fill = CKV_FILL_EXACT,
      .layer_reuse = 1,
      .pool_size = 5,
      .num_sinks = 4,
      .spread = 1,
  };
}

ckv_status ckv_score_checked(ckv_context *ctx, const ckv_params *params,
                             const ckv_query_view *queries, const ckv_kv_view *keys,
                             ckv_scores *scores) {
  ckv_status status = ckv_check_params(ctx, params);
  if (!status) status = ckv_check_kv(ctx, "keys", keys);
  if (!status) status = ckv_check_queries(ctx, params, queries, keys);
  if (!status) status = ckv_check_scores(ctx, params, scores);
  if (status) return status;
  const int32_t heads = ckv_score_heads(params, keys->num_kv_heads);
  if (heads == 0) {
    return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT,
                    "Expected a method that has scores but found %s: call ckv_select alone",
                    ckv_method_name(params->method));
  }
  if (scores->batch != keys->batch || scores->kv_len != keys->kv_len ||
      scores->num_heads != heads) {
    return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT,
                    "Expected scores of [%d, %d, %d] but found [%d, %d, %d]", keys->batch, heads,
                    keys->kv_len, scores->batch, scores->num_heads, scores->kv_len);
  }
  if (keys->batch == 0 || keys->kv_len == 0) return CKV_OK;
  if (ctx->device == CKV_CUDA) return ckv_queue_score(ctx, params, queries, keys, scores);
  int64_t count;
  if (__builtin_mul_overflow((int64_t)keys->batch * keys->num_kv_heads, keys->kv_len, &count) ||
      count > INT64_MAX / (int64_t)sizeof(float)) {
    return ckv_fail(ctx, CKV_ERROR_OUT_OF_MEMORY, "Expected fewer tokens than the memory can hold");
  }
  if (ckv_method_get(params->method)->accumulates) {
    return ckv_score_accumulated(ctx, params, queries, keys, scores);
  }
  float *mass = ckv_scratch_get(ctx, CKV_SCRATCH_MASS, sizeof(float) * (size_t)count);
  if (!mass) return CKV_ERROR_OUT_OF_MEMORY;
  status = ckv_score_mass(ctx, params, queries, keys, mass);
  if (!status) ckv_finish_scores(ctx, params, queries, keys, mass, scores);
  return status;
}

ckv_status ckv_score(ckv_context *context, const ckv_params *params, const ckv_query_view *queries,
                     const ckv_kv_view *keys, ckv_scores *scores) {
  CKV_ENTRY(context, ckv_score_checked(context, params, queries, keys, scores));
}

// Of the longest sequence.
static int64_t max_chunks_of(const ckv_params *params, int32_t kv_len) {
  return ckv_num_chunks(kv_len > params->window ? kv_len - params->window : 0, params->chunk_size);
}

// That the method has chunks, and room for those of so many sequences.
static ckv_status check_chunk_scores(ckv_context *ctx, const ckv_params *params, int32_t batch,
                                     int32_t kv_len, const float *chunk_scores, int64_t count) {
  if (ckv_method_get(params->method)->score_heads != CKV_HEADS_SHARED) {
    return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT,
                    "Expected a method that has chunk scores (chunkkv) but found %s",
                    ckv_method_name(params->method));
  }
  const int64_t needed = batch * max_chunks_of(params, kv_len);
  if (count < needed || (!chunk_scores && needed > 0)) {
    return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT,
                    "Expected room for %lld chunk scores but found %lld", (long long)needed,
                    chunk_scores ? (long long)count : 0LL);
  }
  return ctx->device == CKV_CPU ? CKV_OK
                                : ckv_check_aligned(ctx, "chunk_scores", "data",
                                                    (uintptr_t)chunk_scores, sizeof *chunk_scores);
}

static void reduce_chunks(const ckv_params *params, const ckv_scores *scores, float *chunk_scores) {
  const int64_t max_chunks = max_chunks_of(params, scores->kv_len);
  if (max_chunks == 0) return;  // nor need there be any memory
  for (int32_t b = 0; b < scores->batch; b++) {
    const int32_t n = scores->kv_lens ? scores->kv_lens[b] : scores->kv_len;
    float *row = chunk_scores + b * max_chunks;
    for (int64_t i = 0; i < max_chunks; i++) row[i] = 0;
    if (n > params->window) {
      ckv_reduce_chunks(scores->data + (int64_t)b * scores->kv_len, n - params->window,
                        params->chunk_size, params->chunk_reduce, row);
    }
  }
}

static ckv_status chunk_scores_checked(ckv_context *ctx, const ckv_params *params,
                                       const ckv_scores *scores, float *chunk_scores,
                                       int64_t count) {
  ckv_status status = ckv_check_params(ctx, params);
  if (!status) status = ckv_check_scores(ctx, params, scores);
  if (!status) {
    status = check_chunk_scores(ctx, params, scores->batch, scores->kv_len, chunk_scores, count);
  }
  if (status) return status;
  if (ctx->device == CKV_CPU) {
    reduce_chunks(params, scores, chunk_scores);
  } else if (scores->batch * max_chunks_of(params, scores->kv_len) > 0) {
    status = ckv_queue_chunk_scores(ctx, params, scores, chunk_scores);
  }
  return status;
}

ckv_status ckv_chunk_scores(ckv_context *context, const ckv_params *params,
                            const ckv_scores *scores, float *chunk_scores, int64_t count) {
  CKV_ENTRY(context, chunk_scores_checked(context, params, scores, chunk_scores, count));
}

static ckv_status score_chunks_checked(ckv_context *ctx, const ckv_params *params,
                                       const ckv_query_view *queries, const ckv_kv_view *keys,
                                       float *chunk_scores, int64_t count) {
  ckv_status status = ckv_check_params(ctx, params);
  if (!status) status = ckv_check_kv(ctx, "keys", keys);
  if (!status) status = ckv_check_queries(ctx, params, queries, keys);
  if (!status) {
    status = check_chunk_scores(ctx, params, keys->batch, keys->kv_len, chunk_scores, count);
  }
  if (status) return status;
  if (ctx->device == CKV_CUDA) {
    if (keys->batch * max_chunks_of(params, keys->kv_len) == 0) return CKV_OK;
    return ckv_queue_score_chunks(ctx, params, queries, keys, chunk_scores);
  }
  ckv_scores scores = {.struct_size = sizeof scores,
                       .batch = keys->batch,
                       .num_heads = ckv_score_heads(params, keys->num_kv_heads),
                       .kv_len = keys->kv_len,
                       .kv_lens = keys->kv_lens};
  scores.count = (int64_t)scores.batch * scores.num_heads * scores.kv_len;
  scores.data = ckv_scratch_get(ctx, CKV_SCRATCH_LAYERS, sizeof(float) * (size_t)scores.count);
  if (!scores.data) return CKV_ERROR_OUT_OF_MEMORY;
  status = ckv_score_checked(ctx, params, queries, keys, &scores);
  if (!status) reduce_chunks(params, &scores, chunk_scores);
  return status;
}

ckv_status ckv_score_chunks(ckv_context *context, const ckv_params *params,
                            const ckv_query_view *queries, const ckv_kv_view *keys,
                            float *chunk_scores, int64_t count) {
  CKV_ENTRY(context, score_chunks_checked(context, params, queries, keys, chunk_scores, count));
}

static ckv_status select_checked(ckv_context *ctx, const ckv_params *params,
                                 const ckv_scores *scores, ckv_kept *kept) {
  ckv_status status = ckv_check_params(ctx, params);
  if (!status) status = ckv_check_scores(ctx, params, scores);
  if (status) return status;
  status = ckv_check_kept(ctx, kept, scores->batch, ckv_kept_heads(params, scores->num_heads),
                          ckv_most_kept(params, scores->kv_len));
  if (status || scores->batch == 0) return status;
  if (ctx->device == CKV_CUDA) return ckv_queue_select(ctx, params, scores, kept);
  return ckv_select_kept(ctx, params, scores, kept);
}

ckv_status ckv_select(ckv_context *context, const ckv_params *params, const ckv_scores *scores,
                      ckv_kept *kept) {
  CKV_ENTRY(context, select_checked(context, params, scores, kept));
}

// The two views hold rows of one kind, and the copy cannot run over its own source.
static ckv_status check_destination(ckv_context *ctx, const ckv_kv_view *src,
                                    const ckv_kv_view *dst, const ckv_kept *kept) {
  const ckv_status status = ckv_check_kv_writable(ctx, "dst", dst);
  if (status) return status;
  if (dst->dtype != src->dtype || dst->head_dim != src->head_dim ||
      dst->num_kv_heads != src->num_kv_heads || dst->batch != src->batch) {
    return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT,
                    "Expected dst of the same dtype, head_dim, kv heads and batch as src but found "
                    "%s, %d, %d, %d for %s, %d, %d, %d",
                    ckv_dtype_name(dst->dtype), dst->head_dim, dst->num_kv_heads, dst->batch,
                    ckv_dtype_name(src->dtype), src->head_dim, src->num_kv_heads, src->batch);
  }
  const ckv_status apart = ckv_check_apart(ctx, src, dst);
  if (apart || ctx->device == CKV_CUDA) return apart;
  for (int32_t b = 0; b < dst->batch; b++) {
    if (kept->lens[b] > ckv_kv_len(dst, b)) {
      return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT,
                      "Expected room for %d rows in sequence %d of dst but found %d", kept->lens[b],
                      b, ckv_kv_len(dst, b));
    }
  }
  return CKV_OK;
}

static ckv_status compact_checked(ckv_context *ctx, const ckv_kv_view *src, const ckv_kv_view *dst,
                                  const ckv_kept *kept) {
  const bool in_place = !dst || dst == src;
  ckv_status status =
      in_place ? ckv_check_kv_writable(ctx, "src", src) : ckv_check_kv(ctx, "src", src);
  if (status) return status;
  const bool per_head = kept && kept->num_heads > 1;
  status = ckv_check_kept(ctx, kept, src->batch, per_head ? src->num_kv_heads : 1, 0);
  if (!status && ctx->device == CKV_CPU) status = ckv_check_kept_indices(ctx, kept, src);
  if (!status && !in_place) status = check_destination(ctx, src, dst, kept);
  if (status) return status;
  if (ctx->device == CKV_CPU) return ckv_compact_rows(ctx, src, in_place ? src : dst, kept);
  if (src->batch == 0 || src->kv_len == 0 || kept->capacity == 0) return CKV_OK;
  return ckv_queue_compact(ctx, src, in_place ? src : dst, kept);
}

ckv_status ckv_compact(ckv_context *context, const ckv_kv_view *src, const ckv_kv_view *dst,
                       const ckv_kept *kept) {
  CKV_ENTRY(context, compact_checked(context, src, dst, kept));
}

ckv_status ckv_workspace_size(ckv_context *context, const ckv_params *params,
                              const ckv_layer *layers, int32_t num_layers, int64_t *bytes) {
  int64_t best;
  CKV_ENTRY(context, ckv_workspace_of_layers(context, params, layers, num_layers, bytes, &best));
}

ckv_status ckv_workspace_best(ckv_context *context, const ckv_params *params,
                              const ckv_layer *layers, int32_t num_layers, int64_t *bytes) {
  int64_t least;
  CKV_ENTRY(context, ckv_workspace_of_layers(context, params, layers, num_layers, &least, bytes));
}

ckv_status ckv_select_layers(ckv_context *context, const ckv_params *params,
                             const ckv_layer *layers, int32_t num_layers, ckv_kept *kept) {
  CKV_ENTRY(context, ckv_select_of_layers(context, params, layers, num_layers, kept));
}

ckv_status ckv_compact_layers(ckv_context *context, const ckv_layer *layers, int32_t num_layers,
                              const ckv_kept *kept) {
  CKV_ENTRY(context, ckv_compact_of_layers(context, layers, num_layers, kept));
}

ckv_status ckv_compress(ckv_context *context, const ckv_params *params, const ckv_layer *layers,
                        int32_t num_layers, ckv_kept *kept) {
  CKV_ENTRY(context, ckv_compress_layers(context, params, layers, num_layers, kept));
}
