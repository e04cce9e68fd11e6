#include "check.h"

#include <math.h>

#include "check_expect.h"
#include "kv_view.h"
#include "select/methods/method.h"

ckv_status ckv_check_params(ckv_context *ctx, const ckv_params *p) {
  EXPECT_STRUCT(p, "params");
  EXPECT(ckv_method_name(p->method), "Expected a known method but found number %d", p->method);
  if (ctx->device != CKV_CPU &&
      (p->method == CKV_METHOD_H2O || p->method == CKV_METHOD_PYRAMIDKV)) {
    return ckv_fail(
        ctx, CKV_ERROR_UNSUPPORTED,
        "Expected a method that runs on CUDA (full, streaming_llm, snapkv, chunkkv) but "
        "found %s",
        ckv_method_name(p->method));
  }
  EXPECT(p->budget >= 1 || p->method == CKV_METHOD_FULL,
         "Expected budget to be at least 1 token but found %d", p->budget);
  EXPECT(p->window >= 1 && p->window <= CKV_MAX_WINDOW,
         "Expected window to be 1 to %d tokens but found %d", CKV_MAX_WINDOW, p->window);
  EXPECT(p->chunk_size >= 1, "Expected chunk_size to be at least 1 token but found %d",
         p->chunk_size);
  EXPECT(p->chunk_reduce >= CKV_REDUCE_SUM && p->chunk_reduce <= CKV_REDUCE_MAX,
         "Expected chunk_reduce to be 0 (sum), 1 (mean) or 2 (max) but found %d", p->chunk_reduce);
  EXPECT(p->fill == CKV_FILL_EXACT || p->fill == CKV_FILL_NONE,
         "Expected fill to be 0 (exact) or 1 (none) but found %d", p->fill);
  EXPECT(p->layer_reuse >= 1, "Expected layer_reuse to be at least 1 layer but found %d",
         p->layer_reuse);
  EXPECT(p->pool_size >= 1 && p->pool_size % 2 == 1,
         "Expected pool_size to be an odd number of tokens but found %d", p->pool_size);
  EXPECT(p->num_sinks >= 0, "Expected num_sinks to be at least 0 tokens but found %d",
         p->num_sinks);
  EXPECT(p->spread >= 1 && p->spread <= CKV_MAX_SPREAD,
         "Expected spread to be 1 to %d tokens but found %d", CKV_MAX_SPREAD, p->spread);
  EXPECT(isfinite(p->scale) && p->scale >= 0,
         "Expected scale to be a finite number of at least 0 but found %g", (double)p->scale);
  EXPECT(isfinite(p->logit_softcap) && p->logit_softcap >= 0,
         "Expected logit_softcap to be a finite number of at least 0 but found %g",
         (double)p->logit_softcap);
  return CKV_OK;
}

ckv_status ckv_check_aligned(ckv_context *ctx, const char *name, const char *field, uint64_t value,
                             int64_t bytes) {
  EXPECT(value % (uint64_t)bytes == 0, "Expected %s.%s to be a multiple of %lld but found %llu",
         name, field, (long long)bytes, (unsigned long long)value);
  return CKV_OK;
}

ckv_status ckv_check_lens(ckv_context *ctx, const char *name, const int32_t *lens, int32_t batch,
                          int32_t kv_len) {
  if (ctx->device != CKV_CPU) {
    return ckv_check_aligned(ctx, name, "kv_lens", (uintptr_t)lens, sizeof *lens);
  }
  for (int32_t b = 0; lens && b < batch; b++) {
    EXPECT(lens[b] >= 0 && lens[b] <= kv_len, "Expected %s.kv_lens[%d] to be 0 to %d but found %d",
           name, b, kv_len, lens[b]);
  }
  return CKV_OK;
}

bool ckv_extend(int64_t *end, int64_t count, int64_t stride) {
  int64_t span;
  if (count <= 1) return true;
  return stride >= 0 && !__builtin_mul_overflow(count - 1, stride, &span) &&
         !__builtin_add_overflow(*end, span, end);
}

static ckv_status check_queries_aligned(ckv_context *ctx, const ckv_query_view *q) {
  const int64_t element = ckv_element_alignment(q->dtype);
  ckv_status status = ckv_check_aligned(ctx, "queries", "data", (uintptr_t)q->data, element);
  if (!status) status = ckv_check_aligned(ctx, "queries", "stride_row", q->stride_row, element);
  if (!status) status = ckv_check_aligned(ctx, "queries", "stride_head", q->stride_head, element);
  if (!status) status = ckv_check_aligned(ctx, "queries", "stride_batch", q->stride_batch, element);
  return status ? status
                : ckv_check_aligned(ctx, "queries", "log_sum_exp", (uintptr_t)q->log_sum_exp,
                                    sizeof *q->log_sum_exp);
}

ckv_status ckv_check_queries(ckv_context *ctx, const ckv_params *params, const ckv_query_view *q,
                             const ckv_kv_view *keys) {
  EXPECT_STRUCT(q, "queries");
  EXPECT(q->dtype == CKV_F32 || q->dtype == CKV_F16 || q->dtype == CKV_BF16,
         "Expected queries.dtype to be f32, f16 or bf16 but found %s",
         ckv_dtype_name(q->dtype) ? ckv_dtype_name(q->dtype) : "an unknown number");
  EXPECT(q->device == keys->device, "Expected queries and keys on one device but found %d and %d",
         q->device, keys->device);
  EXPECT(q->reserved == 0, "Expected queries.reserved to be 0 but found %d", q->reserved);
  EXPECT(q->batch == keys->batch, "Expected queries.batch to be %d as in the keys but found %d",
         keys->batch, q->batch);
  EXPECT(q->head_dim == keys->head_dim,
         "Expected queries.head_dim to be %d as in the keys but found %d", keys->head_dim,
         q->head_dim);
  if (ckv_method_get(params->method)->accumulates) {
    EXPECT(q->window >= 1 && q->window <= CKV_MAX_LEN,
           "Expected queries.window to be at least 1 row but found %d", q->window);
  } else {
    EXPECT(q->window == params->window,
           "Expected queries.window to be %d as in params but found %d", params->window, q->window);
  }
  EXPECT(q->num_q_heads >= 1 && q->num_q_heads <= CKV_MAX_HEADS &&
             q->num_q_heads % keys->num_kv_heads == 0,
         "Expected queries.num_q_heads to be a multiple of the %d kv heads but found %d",
         keys->num_kv_heads, q->num_q_heads);
  if (q->batch == 0) return CKV_OK;
  EXPECT(q->data, "Expected queries.data but found NULL");
  int64_t end = ckv_row_bytes(q->dtype, q->head_dim);
  if (!ckv_extend(&end, q->window, q->stride_row) ||
      !ckv_extend(&end, q->num_q_heads, q->stride_head) ||
      !ckv_extend(&end, q->batch, q->stride_batch) || end > q->size_bytes) {
    return ckv_fail(ctx, CKV_ERROR_OUT_OF_BOUNDS,
                    "Expected the strides of queries to stay inside its %lld bytes but found rows "
                    "outside them",
                    (long long)q->size_bytes);
  }
  return ctx->device == CKV_CPU ? CKV_OK : check_queries_aligned(ctx, q);
}

ckv_status ckv_check_scores(ckv_context *ctx, const ckv_params *params, const ckv_scores *s) {
  EXPECT_STRUCT(s, "scores");
  EXPECT(s->batch >= 0 && s->batch <= CKV_MAX_BATCH,
         "Expected scores.batch to be 0 to %d but found %d", CKV_MAX_BATCH, s->batch);
  EXPECT(s->num_heads >= 0 && s->num_heads <= CKV_MAX_HEADS,
         "Expected scores.num_heads to be 0 to %d but found %d", CKV_MAX_HEADS, s->num_heads);
  EXPECT(s->kv_len >= 0 && s->kv_len <= CKV_MAX_LEN,
         "Expected scores.kv_len to be 0 to %d but found %d", CKV_MAX_LEN, s->kv_len);
  const ckv_status status = ckv_check_lens(ctx, "scores", s->kv_lens, s->batch, s->kv_len);
  if (status) return status;
  if (ckv_score_heads(params, 1) == 0) return CKV_OK;  // only the sizes are read

  EXPECT(s->num_heads >= 1, "Expected scores.num_heads to be at least 1 but found %d",
         s->num_heads);
  EXPECT(ckv_method_get(params->method)->score_heads != CKV_HEADS_SHARED || s->num_heads == 1,
         "Expected scores.num_heads to be 1 for %s but found %d", ckv_method_name(params->method),
         s->num_heads);
  int64_t count;
  const bool fits = !__builtin_mul_overflow((int64_t)s->batch * s->num_heads, s->kv_len, &count);
  EXPECT(fits && s->count >= count, "Expected scores.count to be at least %lld but found %lld",
         fits ? (long long)count : -1LL, (long long)s->count);
  EXPECT(s->data || count == 0, "Expected scores.data but found NULL");
  return ctx->device == CKV_CPU
             ? CKV_OK
             : ckv_check_aligned(ctx, "scores", "data", (uintptr_t)s->data, sizeof *s->data);
}

ckv_status ckv_check_kept(ckv_context *ctx, const ckv_kept *kept, int32_t batch, int32_t num_heads,
                          int32_t capacity) {
  EXPECT_STRUCT(kept, "kept");
  EXPECT(kept->batch == batch, "Expected kept.batch to be %d but found %d", batch, kept->batch);
  EXPECT(kept->num_heads == num_heads, "Expected kept.num_heads to be %d but found %d", num_heads,
         kept->num_heads);
  EXPECT(kept->capacity >= capacity, "Expected kept.capacity to be at least %d but found %d",
         capacity, kept->capacity);
  EXPECT(batch == 0 || kept->lens, "Expected kept.lens but found NULL");
  EXPECT(batch == 0 || kept->capacity == 0 || kept->indices,
         "Expected kept.indices but found NULL");
  if (ctx->device == CKV_CPU) return CKV_OK;
  const ckv_status status = ckv_check_aligned(ctx, "kept", "indices", (uintptr_t)kept->indices, 4);
  return status ? status : ckv_check_aligned(ctx, "kept", "lens", (uintptr_t)kept->lens, 4);
}

ckv_status ckv_check_kept_indices(ckv_context *ctx, const ckv_kept *kept, const ckv_kv_view *view) {
  for (int32_t b = 0; b < kept->batch; b++) {
    const int32_t n = ckv_kv_len(view, b), len = kept->lens[b];
    EXPECT(len >= 0 && len <= kept->capacity && len <= n,
           "Expected kept.lens[%d] to be 0 to %d but found %d", b,
           kept->capacity < n ? kept->capacity : n, len);
    for (int32_t h = 0; h < kept->num_heads; h++) {
      const int32_t *indices = kept->indices + ((int64_t)b * kept->num_heads + h) * kept->capacity;
      bool rise = len == 0 || (indices[0] >= 0 && indices[len - 1] < n);
      for (int32_t i = 1; i < len; i++) rise &= indices[i - 1] < indices[i];
      for (int32_t i = 0, previous = -1; !rise && i < len; previous = indices[i++]) {
        EXPECT(indices[i] > previous && indices[i] < n,
               "Expected kept indices of sequence %d, head %d to rise inside 0 to %d but found %d "
               "after %d",
               b, h, n - 1, indices[i], previous);
      }
    }
  }
  return CKV_OK;
}
