#include "check.h"

#include <math.h>
#include <string.h>

#include "kv_view.h"
#include "select/methods/method.h"

#define EXPECT(condition, ...) \
  if (!(condition)) return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT, __VA_ARGS__)

// The struct_size rule is the same for every struct.
#define EXPECT_STRUCT(pointer, name)                                                  \
  do {                                                                                \
    EXPECT(pointer, "Expected %s but found NULL", name);                              \
    EXPECT((pointer)->struct_size == sizeof *(pointer),                               \
           "Expected %s.struct_size to be %zu but found %u", name, sizeof *(pointer), \
           (unsigned)(pointer)->struct_size);                                         \
  } while (0)

ckv_status ckv_check_params(ckv_context *ctx, const ckv_params *p) {
  EXPECT_STRUCT(p, "params");
  EXPECT(ckv_method_name(p->method), "Expected a known method but found number %d", p->method);
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
  EXPECT(isfinite(p->scale) && p->scale >= 0,
         "Expected scale to be a finite number of at least 0 but found %g", (double)p->scale);
  EXPECT(isfinite(p->logit_softcap) && p->logit_softcap >= 0,
         "Expected logit_softcap to be a finite number of at least 0 but found %g",
         (double)p->logit_softcap);
  return CKV_OK;
}

static ckv_status check_lens(ckv_context *ctx, const char *name, const int32_t *lens, int32_t batch,
                             int32_t kv_len) {
  for (int32_t b = 0; lens && b < batch; b++) {
    EXPECT(lens[b] >= 0 && lens[b] <= kv_len, "Expected %s.kv_lens[%d] to be 0 to %d but found %d",
           name, b, kv_len, lens[b]);
  }
  return CKV_OK;
}

// Adds (count - 1) * stride to *end; false on overflow or a negative stride.
static bool extend(int64_t *end, int64_t count, int64_t stride) {
  int64_t span;
  if (count <= 1) return true;
  return stride >= 0 && !__builtin_mul_overflow(count - 1, stride, &span) &&
         !__builtin_add_overflow(*end, span, end);
}

typedef struct {
  int64_t count, stride;
} dimension;

// Rows are disjoint if, from the smallest stride up, each stride steps over all that is inside it.
static bool strides_nest(int64_t inner, dimension *dims, int32_t num_dims) {
  for (int32_t i = 0; i < num_dims; i++) {
    int32_t smallest = i;
    for (int32_t j = i + 1; j < num_dims; j++) {
      if (dims[j].stride < dims[smallest].stride) smallest = j;
    }
    const dimension d = dims[smallest];
    dims[smallest] = dims[i];
    dims[i] = d;
    if (d.count <= 1) continue;
    if (d.stride < inner) return false;
    inner += (d.count - 1) * d.stride;
  }
  return true;
}

static bool rows_are_disjoint(const ckv_kv_view *v, int64_t row_bytes) {
  dimension dims[3] = {
      {v->num_kv_heads, v->stride_head},
      {v->block_size ? v->block_size : v->kv_len, v->stride_token},
      {v->block_size ? v->num_blocks : v->batch, v->block_size ? v->stride_block : v->stride_batch},
  };
  // A stride of a dimension of one element is never walked; do not let it sort in between.
  for (int32_t i = 0; i < 3; i++) {
    if (dims[i].count <= 1) dims[i].stride = INT64_MAX;
  }
  return strides_nest(row_bytes, dims, 3);
}

ckv_status ckv_check_kv(ckv_context *ctx, const char *name, const ckv_kv_view *v) {
  EXPECT_STRUCT(v, name);
  EXPECT(v->device == CKV_CPU || v->device == CKV_CUDA,
         "Expected %s.device to be 0 or 1 but found %d", name, v->device);
  if (v->device != CKV_CPU) {
    return ckv_fail(ctx, CKV_ERROR_UNSUPPORTED, "Expected %s on the CPU but found it on CUDA",
                    name);
  }
  EXPECT(v->batch >= 0 && v->batch <= CKV_MAX_LEN,
         "Expected %s.batch to be at least 0 but found %d", name, v->batch);
  EXPECT(v->num_kv_heads >= 1 && v->num_kv_heads <= CKV_MAX_HEADS,
         "Expected %s.num_kv_heads to be 1 to %d but found %d", name, CKV_MAX_HEADS,
         v->num_kv_heads);
  EXPECT(v->head_dim >= 1 && v->head_dim <= CKV_MAX_HEAD_DIM,
         "Expected %s.head_dim to be 1 to %d but found %d", name, CKV_MAX_HEAD_DIM, v->head_dim);
  EXPECT(v->kv_len >= 0 && v->kv_len <= CKV_MAX_LEN,
         "Expected %s.kv_len to be 0 to %d but found %d", name, CKV_MAX_LEN, v->kv_len);
  EXPECT(ckv_dtype_name(v->dtype), "Expected a known %s.dtype but found number %d", name, v->dtype);
  const int64_t row_bytes = ckv_row_bytes(v->dtype, v->head_dim);
  EXPECT(row_bytes > 0, "Expected %s.head_dim to be a multiple of 32 for %s but found %d", name,
         ckv_dtype_name(v->dtype), v->head_dim);
  EXPECT(v->size_bytes >= 0, "Expected %s.size_bytes to be at least 0 but found %lld", name,
         (long long)v->size_bytes);
  EXPECT(v->block_size >= 0, "Expected %s.block_size to be at least 0 but found %d", name,
         v->block_size);
  const ckv_status status = check_lens(ctx, name, v->kv_lens, v->batch, v->kv_len);
  if (status) return status;
  if (v->batch == 0 || v->kv_len == 0) return CKV_OK;

  EXPECT(v->data, "Expected %s.data but found NULL", name);
  int64_t end = row_bytes;
  bool ok = extend(&end, v->num_kv_heads, v->stride_head);
  if (v->block_size == 0) {
    ok = ok && extend(&end, v->kv_len, v->stride_token) && extend(&end, v->batch, v->stride_batch);
  } else {
    EXPECT(v->block_table && v->num_blocks >= 1 && v->max_blocks >= 0,
           "Expected %s.block_table with max_blocks and num_blocks but found %s, %d and %d", name,
           v->block_table ? "a table" : "NULL", v->max_blocks, v->num_blocks);
    ok = ok && extend(&end, v->block_size, v->stride_token) &&
         extend(&end, v->num_blocks, v->stride_block);
  }
  if (!ok || end > v->size_bytes) {
    return ckv_fail(ctx, CKV_ERROR_OUT_OF_BOUNDS,
                    "Expected the strides of %s to stay inside its %lld bytes but found rows "
                    "outside them",
                    name, (long long)v->size_bytes);
  }
  EXPECT(rows_are_disjoint(v, row_bytes),
         "Expected rows of %s that share no bytes but found strides that overlap", name);
  for (int32_t b = 0; v->block_size && b < v->batch; b++) {
    const int32_t blocks =
        (int32_t)(((int64_t)ckv_kv_len(v, b) + v->block_size - 1) / v->block_size);
    EXPECT(blocks <= v->max_blocks,
           "Expected at least %d blocks in a row of %s.block_table but found max_blocks %d", blocks,
           name, v->max_blocks);
    const int32_t *table = v->block_table + (int64_t)b * v->max_blocks;
    bool ok_blocks = true;  // no way out of this loop: it takes many entries at a time
    for (int32_t i = 0; i < blocks; i++) {
      ok_blocks &= (uint32_t)table[i] < (uint32_t)v->num_blocks;
    }
    for (int32_t i = 0; !ok_blocks && i < blocks; i++) {
      if (table[i] >= 0 && table[i] < v->num_blocks) continue;
      return ckv_fail(ctx, CKV_ERROR_OUT_OF_BOUNDS,
                      "Expected %s.block_table[%d][%d] to be 0 to %d but found %d", name, b, i,
                      v->num_blocks - 1, table[i]);
    }
  }
  return CKV_OK;
}

// Blocks that rise over all sequences, as a cache that fills from the start has them.
static bool blocks_rise(const ckv_kv_view *v) {
  bool rise = true;
  for (int32_t b = 0, last = -1; rise && b < v->batch; b++) {
    const int64_t blocks = ((int64_t)ckv_kv_len(v, b) + v->block_size - 1) / v->block_size;
    const int32_t *table = v->block_table + (int64_t)b * v->max_blocks;
    if (blocks == 0) continue;
    rise = table[0] > last;
    for (int64_t i = 1; i < blocks; i++) rise &= table[i - 1] < table[i];
    last = table[blocks - 1];
  }
  return rise;
}

ckv_status ckv_check_kv_writable(ckv_context *ctx, const char *name, const ckv_kv_view *v) {
  const ckv_status status = ckv_check_kv(ctx, name, v);
  if (status || v->batch == 0 || v->kv_len == 0 || v->block_size == 0) return status;
  if (blocks_rise(v)) return CKV_OK;

  const size_t bytes = ((size_t)v->num_blocks + 7) / 8;
  uint8_t *seen = ckv_scratch_get(ctx, CKV_SCRATCH_COMPACT, bytes);
  if (!seen) return CKV_ERROR_OUT_OF_MEMORY;
  memset(seen, 0, bytes);
  for (int32_t b = 0; b < v->batch; b++) {
    const int64_t blocks = ((int64_t)ckv_kv_len(v, b) + v->block_size - 1) / v->block_size;
    for (int64_t i = 0; i < blocks; i++) {
      const int32_t block = v->block_table[(int64_t)b * v->max_blocks + i];
      const uint8_t bit = (uint8_t)(1u << (block % 8));
      EXPECT(!(seen[block / 8] & bit),
             "Expected every block of %s once but found block %d twice: shared blocks are never "
             "written, copy them out first",
             name, block);
      seen[block / 8] |= bit;
    }
  }
  return CKV_OK;
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
  EXPECT(q->window == params->window, "Expected queries.window to be %d as in params but found %d",
         params->window, q->window);
  EXPECT(q->num_q_heads >= 1 && q->num_q_heads <= CKV_MAX_HEADS &&
             q->num_q_heads % keys->num_kv_heads == 0,
         "Expected queries.num_q_heads to be a multiple of the %d kv heads but found %d",
         keys->num_kv_heads, q->num_q_heads);
  if (q->batch == 0) return CKV_OK;
  EXPECT(q->data, "Expected queries.data but found NULL");
  int64_t end = ckv_row_bytes(q->dtype, q->head_dim);
  if (!extend(&end, q->window, q->stride_row) || !extend(&end, q->num_q_heads, q->stride_head) ||
      !extend(&end, q->batch, q->stride_batch) || end > q->size_bytes) {
    return ckv_fail(ctx, CKV_ERROR_OUT_OF_BOUNDS,
                    "Expected the strides of queries to stay inside its %lld bytes but found rows "
                    "outside them",
                    (long long)q->size_bytes);
  }
  return CKV_OK;
}

ckv_status ckv_check_scores(ckv_context *ctx, const ckv_params *params, const ckv_scores *s) {
  EXPECT_STRUCT(s, "scores");
  EXPECT(s->batch >= 0 && s->batch <= CKV_MAX_LEN,
         "Expected scores.batch to be at least 0 but found %d", s->batch);
  EXPECT(s->num_heads >= 0 && s->num_heads <= CKV_MAX_HEADS,
         "Expected scores.num_heads to be 0 to %d but found %d", CKV_MAX_HEADS, s->num_heads);
  EXPECT(s->kv_len >= 0 && s->kv_len <= CKV_MAX_LEN,
         "Expected scores.kv_len to be 0 to %d but found %d", CKV_MAX_LEN, s->kv_len);
  const ckv_status status = check_lens(ctx, "scores", s->kv_lens, s->batch, s->kv_len);
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
  return CKV_OK;
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
  return CKV_OK;
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
