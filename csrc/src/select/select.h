// Stage two: attention mass -> token scores -> kept indices.
#ifndef CKV_SELECT_H
#define CKV_SELECT_H

#include "../context.h"

// Attention mass [batch, num_kv_heads, kv_len] -> the method's token scores. Checked before.
void ckv_finish_scores(ckv_context *ctx, const ckv_params *params, const ckv_query_view *queries,
                       const ckv_kv_view *keys, const float *mass, ckv_scores *scores);

// Token scores -> kept indices. Views and sizes checked before; NaN scores are found here.
ckv_status ckv_select_kept(ckv_context *ctx, const ckv_params *params, const ckv_scores *scores,
                           ckv_kept *kept);

// The same with the budget that the method gives to one layer of several.
ckv_status ckv_select_kept_of_layer(ckv_context *ctx, const ckv_params *params, int32_t layer,
                                    int32_t num_layers, const ckv_scores *scores, ckv_kept *kept);

#endif
