#include "score.h"

#include "serial.h"

ckv_status ckv_score_mass(ckv_context *ctx, const ckv_params *params, const ckv_query_view *queries,
                          const ckv_kv_view *keys, float *mass) {
  return ckv_score_mass_serial(ctx, params, queries, keys, mass);
}
