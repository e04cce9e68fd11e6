// Whether a copy can run over its own source.
#include <string.h>

#include "check.h"
#include "kv_view.h"

// Blocks of equal number are the same bytes, blocks of different numbers share none.
static bool same_pool(const ckv_kv_view *a, const ckv_kv_view *b) {
  return a->block_size > 0 && a->block_size == b->block_size && a->data == b->data &&
         a->num_blocks == b->num_blocks && a->stride_head == b->stride_head &&
         a->stride_token == b->stride_token && a->stride_block == b->stride_block;
}

static bool is_empty(const ckv_kv_view *v) { return v->batch == 0 || v->kv_len == 0; }

ckv_status ckv_check_apart(ckv_context *ctx, const ckv_kv_view *src, const ckv_kv_view *dst) {
  const uintptr_t from = (uintptr_t)src->data, to = (uintptr_t)dst->data;
  // Differences, not ends: an end may lie past the last address.
  if (from >= to ? from - to >= (uint64_t)dst->size_bytes
                 : to - from >= (uint64_t)src->size_bytes) {
    return CKV_OK;
  }
  if (!same_pool(src, dst)) {
    return ckv_fail(
        ctx, CKV_ERROR_INVALID_ARGUMENT,
        "Expected dst apart from src, or other blocks of its pool, or dst = NULL for in "
        "place, but found overlap");
  }
  // Nothing moves, or its kernels' to see.
  if (is_empty(src) || is_empty(dst) || ctx->device != CKV_CPU) return CKV_OK;

  const size_t bytes = ((size_t)dst->num_blocks + 7) / 8;
  uint8_t *written = ckv_scratch_get(ctx, CKV_SCRATCH_COMPACT, bytes);
  if (!written) return CKV_ERROR_OUT_OF_MEMORY;
  memset(written, 0, bytes);
  for (int32_t b = 0; b < dst->batch; b++) {
    const int32_t *table = dst->block_table + (int64_t)b * dst->max_blocks;
    for (int64_t i = 0; i < ckv_blocks_of(dst, b); i++) {
      written[table[i] / 8] |= (uint8_t)(1u << (table[i] % 8));
    }
  }
  for (int32_t b = 0; b < src->batch; b++) {
    const int32_t *table = src->block_table + (int64_t)b * src->max_blocks;
    for (int64_t i = 0; i < ckv_blocks_of(src, b); i++) {
      if (!(written[table[i] / 8] & (1u << (table[i] % 8)))) continue;
      return ckv_fail(ctx, CKV_ERROR_INVALID_ARGUMENT,
                      "Expected dst in blocks that src does not read but found block %d in both",
                      table[i]);
    }
  }
  return CKV_OK;
}
