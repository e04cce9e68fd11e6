// Where rows are, as kernels see it: a ckv_kv_view without its data pointer, which alone differs
// between the layers of one launch.
#ifndef CKV_DEVICE_VIEW_CUH
#define CKV_DEVICE_VIEW_CUH

#include <cuda_runtime.h>
#include <stdint.h>

#include "../include/chunkkv.h"

// What kernels report, in the first word of the workspace.
enum ckv_fault_bit : uint32_t {
  CKV_FAULT_NUMERIC = 1,      // NaN in queries or keys, or a row of logits that are all -inf
  CKV_FAULT_BLOCK_TABLE = 2,  // an entry outside [0, num_blocks)
  CKV_FAULT_KEPT = 4,         // a kept index outside its sequence, or out of order
};

struct KvShape {
  int64_t stride_batch, stride_head, stride_token, stride_block;
  const int32_t *kv_lens;
  const int32_t *block_table;
  int32_t kv_len, batch, num_kv_heads, head_dim;
  int32_t block_size, max_blocks, num_blocks;
  int32_t dtype;

  __device__ int32_t len(int32_t b) const {
    if (!kv_lens) return kv_len;
    const int32_t n = kv_lens[b];
    return n < 0 ? 0 : n < kv_len ? n : kv_len;
  }

  // Bytes from the view's data to row (b, h, t), or -1 where the block table leads outside.
  __device__ int64_t offset(int32_t b, int32_t h, int32_t t) const {
    if (block_size == 0) return b * stride_batch + h * stride_head + t * stride_token;
    const int32_t index = t / block_size;
    const int32_t block =
        index < max_blocks ? block_table[static_cast<int64_t>(b) * max_blocks + index] : -1;
    if (static_cast<uint32_t>(block) >= static_cast<uint32_t>(num_blocks)) return -1;
    return block * stride_block + (t - index * block_size) * stride_token + h * stride_head;
  }
};

inline KvShape ckv_shape_of(const ckv_kv_view *view) {
  return {view->stride_batch, view->stride_head, view->stride_token, view->stride_block,
          view->kv_lens,      view->block_table, view->kv_len,       view->batch,
          view->num_kv_heads, view->head_dim,    view->block_size,   view->max_blocks,
          view->num_blocks,   view->dtype};
}

inline bool ckv_same_shape(const ckv_kv_view *a, const ckv_kv_view *b) {
  return a->stride_batch == b->stride_batch && a->stride_head == b->stride_head &&
         a->stride_token == b->stride_token && a->stride_block == b->stride_block &&
         a->kv_lens == b->kv_lens && a->block_table == b->block_table && a->kv_len == b->kv_len &&
         a->batch == b->batch && a->num_kv_heads == b->num_kv_heads && a->head_dim == b->head_dim &&
         a->block_size == b->block_size && a->max_blocks == b->max_blocks &&
         a->num_blocks == b->num_blocks && a->dtype == b->dtype;
}

// Where a caller's query rows are: row i of a kv head is of its q head i / window. Strides in bytes.
struct QueryRows {
  int64_t stride_batch, stride_head, stride_row;
  int32_t group, window;

  __device__ const uint8_t *at(const uint8_t *data, int32_t b, int32_t kv_head, int32_t row) const {
    return data + b * stride_batch + (kv_head * group + row / window) * stride_head +
           row % window * stride_row;
  }
};

inline QueryRows ckv_query_rows(const ckv_query_view *q, int32_t num_kv_heads) {
  return {q->stride_batch, q->stride_head, q->stride_row, q->num_q_heads / num_kv_heads, q->window};
}

#endif
