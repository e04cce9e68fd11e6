// Views of every layout, in host memory.
#ifndef CKV_CUDA_TEST_LAYOUTS_H
#define CKV_CUDA_TEST_LAYOUTS_H

#include "device.h"

enum layout { ROWS, GAPS, TOKEN_MAJOR, NHD, HND, FUSED, CELLS, LAYOUTS };

static const char *const LAYOUT_NAMES[] = {"rows", "gaps",  "token major", "nhd",
                                           "hnd",  "fused", "cells"};

// Fills in strides, sizes and a shuffled block table; dtype, head_dim, heads, batch and kv_len are
// set. The table is the caller's to free.
static void layout_view(ckv_kv_view *v, enum layout layout, int32_t spare_blocks) {
  const int64_t row = ckv_row_bytes(v->dtype, v->head_dim);
  const int64_t element = v->dtype == CKV_F32 ? 4 : 2;
  const int64_t gap = layout == GAPS ? element * test_int(1, 9) : 0;
  const bool paged = layout >= NHD;
  v->block_size = !paged ? 0 : layout == CELLS ? 1 : 1 << test_int(1, 6);
  if (layout == HND && test_int(0, 3) == 0) v->block_size = test_int(2, 40);
  const int32_t inner = paged ? v->block_size : v->kv_len;
  const bool token_major = layout == TOKEN_MAJOR || layout == NHD || layout == CELLS;
  v->stride_head = token_major ? row : (row + gap) * inner + gap;
  v->stride_token = token_major ? row * v->num_kv_heads : row + gap;
  int64_t outer = token_major ? v->stride_token * inner : v->stride_head * v->num_kv_heads;
  if (layout == FUSED) {  // [block, head, token, keys | values]
    v->stride_token = 2 * row;
    v->stride_head = 2 * row * inner;
    outer = v->stride_head * v->num_kv_heads;
  }
  v->stride_batch = paged ? 0 : outer;
  v->stride_block = paged ? outer : 0;
  v->max_blocks = paged ? (v->kv_len + inner - 1) / inner : 0;
  v->num_blocks = paged ? v->batch * v->max_blocks + spare_blocks : 0;
  if (paged && v->num_blocks == 0) v->num_blocks = 1;
  v->size_bytes = outer * (paged ? v->num_blocks : v->batch);
  v->block_table = NULL;
  if (!paged) return;
  int32_t *table = host_alloc((int64_t)sizeof(int32_t) * v->num_blocks);
  for (int32_t i = 0; i < v->num_blocks; i++) {
    const int32_t j = test_int(0, i);
    table[i] = table[j];
    table[j] = i;
  }
  v->block_table = table;
}

static int32_t len_of(const ckv_kv_view *v, int32_t b) {
  return v->kv_lens ? v->kv_lens[b] : v->kv_len;
}

static int64_t row_offset(const ckv_kv_view *v, int32_t b, int32_t h, int32_t t) {
  if (!v->block_size) return b * v->stride_batch + h * v->stride_head + t * v->stride_token;
  const int32_t block = v->block_table[(int64_t)b * v->max_blocks + t / v->block_size];
  return block * v->stride_block + t % v->block_size * v->stride_token + h * v->stride_head;
}

// Random lengths; one sequence has kv_len tokens. NULL half of the time: all have.
static int32_t *random_lens(int32_t batch, int32_t kv_len) {
  if (test_int(0, 1)) return NULL;
  int32_t *lens = host_alloc((int64_t)sizeof(int32_t) * batch);
  for (int32_t b = 0; b < batch; b++) lens[b] = test_int(0, 3) ? test_int(0, kv_len) : 0;
  lens[test_int(0, batch - 1)] = kv_len;
  return lens;
}

#endif
