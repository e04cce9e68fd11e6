// Stage one: queries and keys -> attention mass per token.
#ifndef CKV_SCORE_H
#define CKV_SCORE_H

#include "../context.h"

// For every sequence b and kv head g:
//   mass[(b * num_kv_heads + g) * kv_len + t] =
//     sum over the query heads h of g and the window rows i of A[h, i, t],   t < n_b - w_b
// and 0 for t >= n_b - w_b, where n_b is the sequence's length and w_b = min(window, n_b).
// Views are already checked (check.c); `mass` holds batch * num_kv_heads * kv_len floats.
// Returns CKV_ERROR_NUMERIC with an error text if a logit is NaN or a row has no finite logit.
// The result depends on the ISA, never on the number of threads.
ckv_status ckv_score_mass(ckv_context *ctx, const ckv_params *params, const ckv_query_view *queries,
                          const ckv_kv_view *keys, float *mass);

// The same for all tokens t < n_b, those of the window included: row i of it sees those up to its
// own. Queries have at most CKV_MAX_WINDOW rows and no log_sum_exp; no sequence is shorter.
ckv_status ckv_score_mass_of_all(ckv_context *ctx, const ckv_params *params,
                                 const ckv_query_view *queries, const ckv_kv_view *keys,
                                 float *mass);

#endif
