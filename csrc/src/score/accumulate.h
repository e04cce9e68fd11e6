// Token scores of methods that add up the attention of many queries.
#ifndef CKV_ACCUMULATE_H
#define CKV_ACCUMULATE_H

#include "../context.h"

// For every sequence b, kv head g and token t < n_b:
//   scores[b, g, t] = sum over the query heads h of g and the rows i that see t of A[h, i, t]
// Rows are the newest min(queries->window, n_b) tokens, each of which sees the tokens up to its own.
// They are scored CKV_MAX_WINDOW at a time and summed up in float64: memory grows with the tokens,
// not with the rows. Checked before; the batch and kv_len are not 0.
ckv_status ckv_score_accumulated(ckv_context *ctx, const ckv_params *params,
                                 const ckv_query_view *queries, const ckv_kv_view *keys,
                                 ckv_scores *scores);

#endif
