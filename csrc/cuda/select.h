// Selecting from scores of chunks, for who has made them without those of tokens.
#ifndef CKV_CUDA_SELECT_H
#define CKV_CUDA_SELECT_H

#include "select.cuh"
#include "stages.h"

// As ckv_cuda_select; of_chunks: scores[l].data is [batch, chunks], and token scores come from there and
// from the keys of layers[l]. NULL: scores are of tokens.
ckv_status ckv_cuda_select_from(const ckv_cuda_call *call, const ckv_params *params,
                                const ckv_scores *scores, int32_t num_layers, const ckv_kept *kept,
                                const TokenSource *of_chunks, const ckv_layer *layers);

#endif
