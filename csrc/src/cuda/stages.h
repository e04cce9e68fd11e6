// The stages of a context of CKV_CUDA: arguments have been checked, work is queued.
#ifndef CKV_CUDA_STAGES_H
#define CKV_CUDA_STAGES_H

#include "../context.h"

ckv_status ckv_queue_score(ckv_context *ctx, const ckv_params *params,
                           const ckv_query_view *queries, const ckv_kv_view *keys,
                           const ckv_scores *scores);

// Token scores stay in the workspace.
ckv_status ckv_queue_score_chunks(ckv_context *ctx, const ckv_params *params,
                                  const ckv_query_view *queries, const ckv_kv_view *keys,
                                  float *chunk_scores);

ckv_status ckv_queue_chunk_scores(ckv_context *ctx, const ckv_params *params,
                                  const ckv_scores *scores, float *chunk_scores);

ckv_status ckv_queue_select(ckv_context *ctx, const ckv_params *params, const ckv_scores *scores,
                            const ckv_kept *kept);

// Of a method that neither scores nor has chunks: moving rows needs as much workspace, and no more.
ckv_params ckv_moving_params(void);

ckv_status ckv_queue_compact(ckv_context *ctx, const ckv_kv_view *src, const ckv_kv_view *dst,
                             const ckv_kept *kept);

// Selects for all layers; `moves`: then compacts them.
ckv_status ckv_queue_layers(ckv_context *ctx, const ckv_params *params, const ckv_layer *layers,
                            int32_t num_layers, const ckv_kept *kept, bool moves);

// Queries are not looked at.
ckv_status ckv_queue_compact_layers(ckv_context *ctx, const ckv_layer *layers, int32_t num_layers,
                                    const ckv_kept *kept);

// Bytes for the stages and, after them, for the scores that ckv_queue_layers keeps there.
ckv_status ckv_queue_workspace(ckv_context *ctx, const ckv_params *params, const ckv_layer *layers,
                               int32_t num_layers, int64_t *least, int64_t *best);

#endif
