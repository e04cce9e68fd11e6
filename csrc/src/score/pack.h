// Query rows to the layout that the tile kernels read.
#ifndef CKV_SCORE_PACK_H
#define CKV_SCORE_PACK_H

#include "wave.h"

// head_dim, padded as the kernels want it.
static inline int32_t ckv_score_dim(int32_t head_dim) {
  return (head_dim + CKV_SCORE_DIM_STEP - 1) / CKV_SCORE_DIM_STEP * CKV_SCORE_DIM_STEP;
}

// The query head and window row of row `row` of a range; padding repeats the last row.
typedef struct ckv_score_row {
  int32_t head;
  int32_t window_row;  // of the query view
} ckv_score_row;

static inline ckv_score_row ckv_score_row_at(const ckv_score_plan *plan,
                                             const ckv_score_range *range, int32_t row) {
  const int32_t group = plan->queries->num_q_heads / plan->keys->num_kv_heads;
  const int32_t last = range->used - 1;
  const int32_t r = range->first_row + (row < last ? row : last);
  return (ckv_score_row){
      .head = range->g * group + r / range->window,
      .window_row = plan->queries->window - range->window + r % range->window,
  };
}

// Packs the rows [first, first + count) of a range, one block. `row` holds ckv_score_dim() floats.
void ckv_score_pack(const ckv_score_plan *plan, const ckv_score_range *range, int32_t first,
                    int32_t count, bool pairs, float *row);

#endif
