// Work that is in flight together: row ranges whose weights fit into the scratch budget.
#ifndef CKV_SCORE_WAVE_H
#define CKV_SCORE_WAVE_H

#include <stdbool.h>
#include <stddef.h>

#include "../dispatch.h"
#include "score.h"

// Query rows [first_row, first_row + used) of one (sequence, kv head), and where their data are.
typedef struct ckv_score_range {
  int32_t b;
  int32_t g;
  int32_t kv_len;
  int32_t window;  // rows of one query head: min(window, kv_len)
  int32_t first_row;
  int32_t used;
  int32_t rows;         // used, padded to the kernel's lanes
  int32_t num_tiles;    // tiles of keys that are worked on
  int64_t first_tile;   // number of its first tile in the wave
  int64_t first_block;  // number of its first block of rows in the wave
  float *queries;       // packed
  float *weights;       // [num_tiles][rows * CKV_SCORE_TILE]; NULL with log_sum_exp
  float *row_ref;       // [num_tiles][rows]; with log_sum_exp [rows]
  float *row_sum;       // [num_tiles][rows]; with log_sum_exp [rows]: 1, or 0 for padding
  float *total;         // [rows]
} ckv_score_range;

enum { CKV_WAVE_RANGES = 256 };

typedef struct ckv_score_wave {
  ckv_score_range ranges[CKV_WAVE_RANGES];
  int32_t count;
  int64_t num_tiles;
  int64_t num_blocks;
  size_t bytes;
} ckv_score_wave;

// Walks all row ranges of a call in order. Ranges depend on the sizes alone, never on the threads.
typedef struct ckv_score_plan {
  const ckv_query_view *queries;
  const ckv_kv_view *keys;
  const ckv_score_rows *kernels;
  bool all_tokens;    // the window's own tokens get their mass, too
  int32_t threads;    // that share a wave
  int64_t problem;    // next (sequence, kv head)
  int32_t first_row;  // next row of it
} ckv_score_plan;

// The next wave; false when all is done. A (sequence, kv head) has at most one range in a wave, so
// that the sums over its ranges are taken in order.
bool ckv_score_next_wave(ckv_score_plan *plan, ckv_score_wave *wave);

// Gives every range its part of `memory`, which holds wave->bytes.
void ckv_score_wave_place(ckv_score_wave *wave, const ckv_score_plan *plan, char *memory);

#endif
