// The pipeline: score -> select for every layer that selects, then compact for all.
#ifndef CKV_COMPRESS_H
#define CKV_COMPRESS_H

#include "context.h"

// Checks its arguments itself. Nothing is moved before every layer is checked and selected.
ckv_status ckv_compress_layers(ckv_context *ctx, const ckv_params *params, const ckv_layer *layers,
                               int32_t num_layers, ckv_kept *kept);

// Its two halves, ckv_select_layers and ckv_compact_layers. They check their arguments themselves.
ckv_status ckv_select_of_layers(ckv_context *ctx, const ckv_params *params, const ckv_layer *layers,
                                int32_t num_layers, ckv_kept *kept);
ckv_status ckv_compact_of_layers(ckv_context *ctx, const ckv_layer *layers, int32_t num_layers,
                                 const ckv_kept *kept);

// ckv_workspace_size and ckv_workspace_best. Checks its arguments itself.
ckv_status ckv_workspace_of_layers(ckv_context *ctx, const ckv_params *params,
                                   const ckv_layer *layers, int32_t num_layers, int64_t *least,
                                   int64_t *best);

// ckv_score without taking the context (abi.c).
ckv_status ckv_score_checked(ckv_context *ctx, const ckv_params *params,
                             const ckv_query_view *queries, const ckv_kv_view *keys,
                             ckv_scores *scores);

#endif
