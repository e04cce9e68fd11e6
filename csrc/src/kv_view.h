// Where the rows of a view are: contiguous, strided and paged in one place.
#ifndef CKV_KV_VIEW_H
#define CKV_KV_VIEW_H

#include <stdint.h>

#include "../include/chunkkv.h"

static inline int32_t ckv_kv_len(const ckv_kv_view *view, int32_t b) {
  return view->kv_lens ? view->kv_lens[b] : view->kv_len;
}

// Blocks that hold the tokens of sequence b of a paged view.
static inline int64_t ckv_blocks_of(const ckv_kv_view *view, int32_t b) {
  return ((int64_t)ckv_kv_len(view, b) + view->block_size - 1) / view->block_size;
}

// Byte offset of token t of sequence b, head 0. The view has been checked.
static inline int64_t ckv_token_offset(const ckv_kv_view *view, int32_t b, int32_t t) {
  if (view->block_size == 0) return b * view->stride_batch + t * view->stride_token;
  const int32_t block = view->block_table[(int64_t)b * view->max_blocks + t / view->block_size];
  return block * view->stride_block + (t % view->block_size) * view->stride_token;
}

static inline char *ckv_row(const ckv_kv_view *view, int32_t b, int32_t head, int32_t t) {
  return (char *)view->data + ckv_token_offset(view, b, t) + head * view->stride_head;
}

static inline const char *ckv_query_row(const ckv_query_view *view, int32_t b, int32_t head,
                                        int32_t row) {
  return (const char *)view->data + b * view->stride_batch + head * view->stride_head +
         row * view->stride_row;
}

#endif
