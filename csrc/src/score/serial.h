// The reference: portable C, double accumulation, exp and tanh of libm.
#ifndef CKV_SCORE_SERIAL_H
#define CKV_SCORE_SERIAL_H

#include "score.h"

// The contracts of ckv_score_mass and, with all_tokens, of ckv_score_mass_of_all. Two passes over the keys, no scratch that grows with kv_len.
ckv_status ckv_score_mass_serial(ckv_context *ctx, const ckv_params *params,
                                 const ckv_query_view *queries, const ckv_kv_view *keys,
                                 bool all_tokens, float *mass);

#endif
