// The stages behind the table of cuda_api.h, a file each. The call's device is the current one.
//
// workspace_size is asked for a whole pipeline, and for single stages with what their callers know:
// a layer without queries is not scored; select and chunk_scores alone have keys of the scores'
// shape (heads, lengths; no data, head_dim 1 of f32); compact alone has the default method with the
// indices' capacity as budget, and values NULL.
#ifndef CKV_CUDA_STAGES_H
#define CKV_CUDA_STAGES_H

#include "cuda_api.h"

ckv_status ckv_cuda_workspace_size(const ckv_cuda_call *call, const ckv_params *params,
                                   const ckv_layer *layers, int32_t num_layers, int64_t *least,
                                   int64_t *best);

ckv_status ckv_cuda_score(const ckv_cuda_call *call, const ckv_params *params,
                          const ckv_layer *layers, int32_t num_layers, const ckv_scores *scores);

ckv_status ckv_cuda_chunk_scores(const ckv_cuda_call *call, const ckv_params *params,
                                 const ckv_scores *scores, float *chunk_scores);

ckv_status ckv_cuda_score_chunks(const ckv_cuda_call *call, const ckv_params *params,
                                 const ckv_layer *layer, const ckv_scores *scores,
                                 float *chunk_scores);

ckv_status ckv_cuda_choose(const ckv_cuda_call *call, const ckv_params *params,
                           const ckv_layer *layers, int32_t num_layers, const ckv_scores *scores,
                           const ckv_kept *kept);

ckv_status ckv_cuda_select(const ckv_cuda_call *call, const ckv_params *params,
                           const ckv_scores *scores, int32_t num_layers, const ckv_kept *kept);

ckv_status ckv_cuda_compact(const ckv_cuda_call *call, const ckv_kv_view *const *src,
                            const ckv_kv_view *const *dst, const ckv_kept *const *kept,
                            int32_t num_views);

#endif
