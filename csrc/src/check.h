// Every argument check, before any stage touches memory.
#ifndef CKV_CHECK_H
#define CKV_CHECK_H

#include "context.h"

#define CKV_MAX_THREADS 1024
#define CKV_MAX_WINDOW 64
#define CKV_MAX_SPREAD 64
#define CKV_MAX_HEAD_DIM 1024
#define CKV_MAX_HEADS 65536
#define CKV_MAX_LEN (1 << 30)
#define CKV_MAX_BATCH (1 << 20)  // checks walk over it even where nothing else does

ckv_status ckv_check_params(ckv_context *ctx, const ckv_params *params);

// What every view promises: sizes in range, rows inside size_bytes and apart from each other, block
// table entries in range.
ckv_status ckv_check_kv(ckv_context *ctx, const char *name, const ckv_kv_view *view);

// Also that every block is in the table once: shared blocks are never written.
ckv_status ckv_check_kv_writable(ckv_context *ctx, const char *name, const ckv_kv_view *view);

// That nothing is written that src reads: memory apart, or other blocks of one pool. Both checked.
ckv_status ckv_check_apart(ckv_context *ctx, const ckv_kv_view *src, const ckv_kv_view *dst);

ckv_status ckv_check_queries(ckv_context *ctx, const ckv_params *params,
                             const ckv_query_view *queries, const ckv_kv_view *keys);
ckv_status ckv_check_scores(ckv_context *ctx, const ckv_params *params, const ckv_scores *scores);

// `num_heads` is what ckv_kept_heads gives; `writable`: capacity is enough for kv_len tokens.
ckv_status ckv_check_kept(ckv_context *ctx, const ckv_kept *kept, int32_t batch, int32_t num_heads,
                          int32_t capacity);

// Indices ascending and inside the view.
ckv_status ckv_check_kept_indices(ckv_context *ctx, const ckv_kept *kept, const ckv_kv_view *view);

#endif
