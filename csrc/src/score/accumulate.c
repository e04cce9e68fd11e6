#include "accumulate.h"

#include <string.h>

#include "../check.h"
#include "../kv_view.h"
#include "score.h"

// `rows` rows from row `first` on of sequence b's queries, and the keys that the last of them sees.
static ckv_status add_block(ckv_context *ctx, const ckv_params *params,
                            const ckv_query_view *queries, const ckv_kv_view *keys, int32_t b,
                            int32_t first, int32_t rows, double *sums) {
  const int32_t n = ckv_kv_len(keys, b);
  const int32_t seen = n - (queries->window - first - rows);
  const int32_t heads = keys->num_kv_heads;
  ckv_query_view block = *queries;
  block.batch = 1;
  block.window = rows;
  block.data = ckv_query_row(queries, b, 0, first);
  block.log_sum_exp = NULL;
  ckv_kv_view own = *keys;
  own.batch = 1;
  own.kv_len = seen;
  own.kv_lens = NULL;
  if (keys->block_size > 0) {
    own.block_table += (int64_t)b * keys->max_blocks;
  } else {
    own.data = (char *)own.data + b * keys->stride_batch;
  }
  const size_t count = (size_t)heads * (size_t)seen;
  float *mass = ckv_scratch_get(ctx, CKV_SCRATCH_MASS, sizeof *mass * count);
  if (!mass) return CKV_ERROR_OUT_OF_MEMORY;
  const ckv_status status = ckv_score_mass_of_all(ctx, params, &block, &own, mass);
  for (int32_t h = 0; h < heads && !status; h++) {
    double *sum = sums + (int64_t)h * n;
    const float *more = mass + (int64_t)h * seen;
    for (int32_t t = 0; t < seen; t++) sum[t] += (double)more[t];
  }
  return status;
}

ckv_status ckv_score_accumulated(ckv_context *ctx, const ckv_params *params,
                                 const ckv_query_view *queries, const ckv_kv_view *keys,
                                 ckv_scores *scores) {
  const int32_t heads = keys->num_kv_heads;
  const int64_t stride = scores->kv_len;
  double *sums =
      ckv_scratch_get(ctx, CKV_SCRATCH_SUMS, sizeof *sums * (size_t)heads * (size_t)keys->kv_len);
  if (!sums) return CKV_ERROR_OUT_OF_MEMORY;
  for (int32_t b = 0; b < keys->batch; b++) {
    const int32_t n = ckv_kv_len(keys, b);
    float *out = scores->data + (int64_t)b * heads * stride;
    memset(out, 0, sizeof *out * (size_t)heads * (size_t)stride);
    memset(sums, 0, sizeof *sums * (size_t)heads * (size_t)n);
    ckv_status status = CKV_OK;
    int32_t first = queries->window - (queries->window < n ? queries->window : n);
    for (int32_t rows; first < queries->window && !status; first += rows) {
      rows = queries->window - first < CKV_MAX_WINDOW ? queries->window - first : CKV_MAX_WINDOW;
      status = add_block(ctx, params, queries, keys, b, first, rows, sums);
    }
    if (status) return status;
    for (int32_t h = 0; h < heads; h++) {
      for (int32_t t = 0; t < n; t++) {
        out[h * stride + t] = (float)sums[(int64_t)h * n + t];
      }
    }
  }
  return CKV_OK;
}
