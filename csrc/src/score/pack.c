#include "pack.h"

#include <string.h>

#include "../dtype.h"
#include "../kv_view.h"

static const char *row_data(const ckv_score_plan *plan, const ckv_score_range *range, int32_t row) {
  const ckv_score_row at = ckv_score_row_at(plan, range, row);
  return ckv_query_row(plan->queries, range->b, at.head, at.window_row);
}

// f32 [dim][count]
static void pack_f32(const ckv_score_plan *plan, const ckv_score_range *range, int32_t first,
                     int32_t count, float *row, float *out) {
  const int32_t head_dim = plan->queries->head_dim;
  const int32_t dim = ckv_score_dim(head_dim);
  for (int32_t r = 0; r < count; r++) {
    ckv_row_to_f32(plan->queries->dtype, row_data(plan, range, first + r), head_dim, row);
    for (int32_t k = head_dim; k < dim; k++) row[k] = 0;
    for (int32_t k = 0; k < dim; k++) out[(int64_t)k * count + r] = row[k];
  }
}

// bf16 [dim / 2][count][2]
static void pack_pairs(const ckv_score_plan *plan, const ckv_score_range *range, int32_t first,
                       int32_t count, uint16_t *out) {
  const int32_t head_dim = plan->queries->head_dim;
  const int32_t dim = ckv_score_dim(head_dim);
  for (int32_t r = 0; r < count; r++) {
    const char *data = row_data(plan, range, first + r);
    for (int32_t k = 0; k < dim; k++) {
      uint16_t bits = 0;
      if (k < head_dim) memcpy(&bits, data + 2 * k, sizeof bits);
      out[((int64_t)(k / 2) * count + r) * 2 + k % 2] = bits;
    }
  }
}

void ckv_score_pack(const ckv_score_plan *plan, const ckv_score_range *range, int32_t first,
                    int32_t count, bool pairs, float *row) {
  float *out = range->queries + (int64_t)first * ckv_score_dim(plan->queries->head_dim);
  if (pairs) {
    pack_pairs(plan, range, first, count, (uint16_t *)(void *)out);
  } else {
    pack_f32(plan, range, first, count, row, out);
  }
}
