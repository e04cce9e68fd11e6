// Views of keys and values: sizes, strides, block tables.
#include <string.h>

#include "check_expect.h"
#include "kv_view.h"

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

static const char *const DEVICES[] = {[CKV_CPU] = "the CPU", [CKV_CUDA] = "CUDA"};

// What is left to check of a block table: its entries, or on a device only that it is long enough.
static ckv_status check_blocks(ckv_context *ctx, const char *name, const ckv_kv_view *v) {
  for (int32_t b = 0; b < v->batch; b++) {
    if (ctx->device != CKV_CPU && v->kv_lens) break;
    const int32_t blocks = (int32_t)ckv_blocks_of(v, b);
    EXPECT(blocks <= v->max_blocks,
           "Expected at least %d blocks in a row of %s.block_table but found max_blocks %d", blocks,
           name, v->max_blocks);
    if (ctx->device != CKV_CPU) break;
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

// Device memory: every row begins at a whole element.
static ckv_status check_aligned(ckv_context *ctx, const char *name, const ckv_kv_view *v) {
  const int64_t element = ckv_element_alignment(v->dtype);
  ckv_status status = ckv_check_aligned(ctx, name, "data", (uintptr_t)v->data, element);
  if (!status) status = ckv_check_aligned(ctx, name, "stride_head", v->stride_head, element);
  if (!status) status = ckv_check_aligned(ctx, name, "stride_token", v->stride_token, element);
  if (!status && v->block_size == 0) {
    return ckv_check_aligned(ctx, name, "stride_batch", v->stride_batch, element);
  }
  if (!status) status = ckv_check_aligned(ctx, name, "stride_block", v->stride_block, element);
  return status ? status
                : ckv_check_aligned(ctx, name, "block_table", (uintptr_t)v->block_table,
                                    sizeof *v->block_table);
}

ckv_status ckv_check_kv(ckv_context *ctx, const char *name, const ckv_kv_view *v) {
  EXPECT_STRUCT(v, name);
  EXPECT(v->device == CKV_CPU || v->device == CKV_CUDA,
         "Expected %s.device to be 0 or 1 but found %d", name, v->device);
  if (v->device != ctx->device) {
    return ckv_fail(ctx, CKV_ERROR_UNSUPPORTED,
                    "Expected %s on the context's device, %s, but found it on %s", name,
                    DEVICES[ctx->device], DEVICES[v->device]);
  }
  EXPECT(v->batch >= 0 && v->batch <= CKV_MAX_BATCH, "Expected %s.batch to be 0 to %d but found %d",
         name, CKV_MAX_BATCH, v->batch);
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
  const ckv_status status = ckv_check_lens(ctx, name, v->kv_lens, v->batch, v->kv_len);
  if (status) return status;
  if (v->batch == 0 || v->kv_len == 0) return CKV_OK;

  EXPECT(v->data, "Expected %s.data but found NULL", name);
  int64_t end = row_bytes;
  bool ok = ckv_extend(&end, v->num_kv_heads, v->stride_head);
  if (v->block_size == 0) {
    ok = ok && ckv_extend(&end, v->kv_len, v->stride_token) &&
         ckv_extend(&end, v->batch, v->stride_batch);
  } else {
    EXPECT(v->block_table && v->num_blocks >= 1 && v->max_blocks >= 0,
           "Expected %s.block_table with max_blocks and num_blocks but found %s, %d and %d", name,
           v->block_table ? "a table" : "NULL", v->max_blocks, v->num_blocks);
    ok = ok && ckv_extend(&end, v->block_size, v->stride_token) &&
         ckv_extend(&end, v->num_blocks, v->stride_block);
  }
  if (!ok || end > v->size_bytes) {
    return ckv_fail(ctx, CKV_ERROR_OUT_OF_BOUNDS,
                    "Expected the strides of %s to stay inside its %lld bytes but found rows "
                    "outside them",
                    name, (long long)v->size_bytes);
  }
  EXPECT(rows_are_disjoint(v, row_bytes),
         "Expected rows of %s that share no bytes but found strides that overlap", name);
  const ckv_status blocks = v->block_size ? check_blocks(ctx, name, v) : CKV_OK;
  if (blocks || ctx->device == CKV_CPU) return blocks;
  return check_aligned(ctx, name, v);
}

// Blocks that rise over all sequences, as a cache that fills from the start has them.
static bool blocks_rise(const ckv_kv_view *v) {
  bool rise = true;
  for (int32_t b = 0, last = -1; rise && b < v->batch; b++) {
    const int64_t blocks = ckv_blocks_of(v, b);
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
  if (ctx->device != CKV_CPU || blocks_rise(v)) return CKV_OK;

  const size_t bytes = ((size_t)v->num_blocks + 7) / 8;
  uint8_t *seen = ckv_scratch_get(ctx, CKV_SCRATCH_COMPACT, bytes);
  if (!seen) return CKV_ERROR_OUT_OF_MEMORY;
  memset(seen, 0, bytes);
  for (int32_t b = 0; b < v->batch; b++) {
    const int64_t blocks = ckv_blocks_of(v, b);
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
