// Reads a flash-attention node: which cache layer it attends to, and how.
#ifndef CKVL_ATTENTION_NODE_H
#define CKVL_ATTENTION_NODE_H

#include "capture.h"

// Fills in every field of *layer that the node tells (not queries, rows, next and mask).
// CKV_ERROR_UNSUPPORTED: attention of a kind that cannot be compacted.
// `caches`, or NULL: where backends may attend to copies of a cache, the caches themselves.
ckv_status ckvl_attention_read(const ckvl_api *api, const ckvl_caches *caches,
                               const struct ggml_tensor *node, ckvl_layer *layer,
                               ckvl_error *error);

// The layer whose cache a GGML_OP_SET_ROWS node writes to, and the cache's tensor; -1: none.
int32_t ckvl_cache_written(const struct ggml_tensor *node, struct ggml_tensor **base,
                           bool *is_keys);

// The ckv_dtype of a ggml type, -1 if there is none.
int32_t ckvl_dtype(enum ggml_type type);

#endif
