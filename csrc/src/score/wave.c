#include "wave.h"

#include "../kv_view.h"

// Bytes of weights in flight. Small enough for a last-level cache, so that the second look at the
// weights does not go to memory; large enough that the keys of a head are seldom read twice.
#define WAVE_BYTES ((size_t)32 << 20)

// Heads share a wave up to so much for each thread: enough to do, and what a wave writes first is
// still in the caches when it is read again.
#define THREAD_BYTES ((size_t)4 << 20)

// With log_sum_exp nothing is kept but one tile of weights per thread: rows are bounded by L2.
enum { MOST_ROWS_AT_ONCE = 512 };

typedef struct sizes {
  size_t queries, weights, stats, total;
} sizes;

static size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

static size_t padded_dim(const ckv_query_view *queries) {
  return ((size_t)queries->head_dim + CKV_SCORE_DIM_STEP - 1) / CKV_SCORE_DIM_STEP *
         CKV_SCORE_DIM_STEP;
}

static sizes range_sizes(const ckv_score_plan *plan, int32_t rows, int32_t num_tiles) {
  const size_t r = (size_t)rows;
  const bool normed = plan->queries->log_sum_exp != NULL;
  return (sizes){
      .queries = aligned(r * padded_dim(plan->queries) * sizeof(float)),
      .weights = normed ? 0 : aligned((size_t)num_tiles * r * CKV_SCORE_TILE * sizeof(float)),
      .stats = aligned((normed ? 1 : (size_t)num_tiles) * r * sizeof(float)),
      .total = aligned(r * sizeof(float)),
  };
}

static size_t range_bytes(sizes s) { return s.queries + s.weights + 2 * s.stats + s.total; }

static int32_t round_up(int32_t value, int32_t step) { return (value + step - 1) / step * step; }

// Sizes of the plan's current range; rows 0: nothing is scored there.
static ckv_score_range describe(const ckv_score_plan *plan) {
  const ckv_kv_view *keys = plan->keys;
  ckv_score_range range = {.b = (int32_t)(plan->problem / keys->num_kv_heads),
                           .g = (int32_t)(plan->problem % keys->num_kv_heads),
                           .first_row = plan->first_row};
  range.kv_len = ckv_kv_len(keys, range.b);
  range.window = plan->queries->window;
  if (range.kv_len < range.window + (plan->all_tokens ? 0 : 1)) return range;
  const bool normed = plan->queries->log_sum_exp != NULL;
  const int32_t tokens = normed ? range.kv_len - range.window : range.kv_len;
  range.num_tiles = (tokens + CKV_SCORE_TILE - 1) / CKV_SCORE_TILE;

  const int32_t block = plan->kernels->block_rows;
  const size_t block_bytes = range_bytes(range_sizes(plan, block, range.num_tiles));
  const size_t blocks = WAVE_BYTES / block_bytes;
  int64_t most = blocks > 1 ? (int64_t)blocks * block : block;
  if (normed && most > MOST_ROWS_AT_ONCE) most = MOST_ROWS_AT_ONCE;
  const int32_t group = plan->queries->num_q_heads / keys->num_kv_heads;
  const int32_t left = group * range.window - range.first_row;
  range.used = left < most ? left : (int32_t)most;
  range.rows = round_up(range.used, plan->kernels->lanes);
  return range;
}

static void advance(ckv_score_plan *plan, const ckv_score_range *range) {
  const int32_t group = plan->queries->num_q_heads / plan->keys->num_kv_heads;
  plan->first_row += range->used;
  if (range->rows == 0 || plan->first_row == group * range->window) {
    plan->problem++;
    plan->first_row = 0;
  }
}

bool ckv_score_next_wave(ckv_score_plan *plan, ckv_score_wave *wave) {
  const int64_t problems = (int64_t)plan->keys->batch * plan->keys->num_kv_heads;
  const size_t shared = THREAD_BYTES * (size_t)plan->threads;
  const size_t joined = shared < WAVE_BYTES ? shared : WAVE_BYTES;
  wave->count = 0;
  wave->num_tiles = 0;
  wave->num_blocks = 0;
  wave->bytes = 0;
  while (plan->problem < problems && wave->count < CKV_WAVE_RANGES) {
    ckv_score_range range = describe(plan);
    if (range.rows == 0) {
      advance(plan, &range);
      continue;
    }
    const size_t bytes = range_bytes(range_sizes(plan, range.rows, range.num_tiles));
    if (wave->count > 0 && wave->bytes + bytes > joined) break;
    range.first_tile = wave->num_tiles;
    range.first_block = wave->num_blocks;
    wave->ranges[wave->count++] = range;
    wave->num_tiles += range.num_tiles;
    wave->num_blocks += round_up(range.rows, plan->kernels->block_rows) / plan->kernels->block_rows;
    wave->bytes += bytes;
    const int64_t problem = plan->problem;
    advance(plan, &range);
    if (plan->problem == problem) break;  // more rows of it: in the next wave
  }
  return wave->count > 0;
}

static float *take(char **memory, size_t bytes) {
  float *part = (float *)(void *)*memory;
  *memory += bytes;
  return part;
}

void ckv_score_wave_place(ckv_score_wave *wave, const ckv_score_plan *plan, char *memory) {
  for (int32_t i = 0; i < wave->count; i++) {
    ckv_score_range *range = &wave->ranges[i];
    const sizes s = range_sizes(plan, range->rows, range->num_tiles);
    range->queries = take(&memory, s.queries);
    range->weights = s.weights ? take(&memory, s.weights) : NULL;
    range->row_ref = take(&memory, s.stats);
    range->row_sum = take(&memory, s.stats);
    range->total = take(&memory, s.total);
  }
}
