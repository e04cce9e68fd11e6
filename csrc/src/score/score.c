#include "score.h"

#include <math.h>
#include <string.h>

#include "../kv_view.h"
#include "fault.h"
#include "pack.h"
#include "serial.h"
#include "wave.h"

// One pass over the keys: every tile gives its weights relative to the tile's own row maxima; when
// all tiles of a row are there, each tile's weights get one factor per row. Measured, keeping the
// weights costs 6% of the matrix product that a second pass would repeat whole.
//
// A wave is four parallel loops: pack (blocks of rows), score (tiles), combine (blocks), mass
// (tiles). With log_sum_exp the factors are known beforehand and the first two suffice.
typedef struct job {
  ckv_score_plan plan;
  ckv_score_wave wave;
  ckv_score_kernels kernels;
  float *mass;
  char *scratch;  // per thread
  size_t thread_bytes;
  size_t keys_bytes;
  size_t rows_bytes;
  size_t visible_bytes;
  int32_t threads;
  int32_t dim;  // head_dim, padded
  float logit_scale;
  float cap_scale;
  bool capped;
  bool normed;  // log_sum_exp is given
  ckv_score_fault fault;
} job;

#define LOG2_E 1.4426950408889634

static size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

// What one thread works with.
typedef struct thread_scratch {
  float *keys;  // [CKV_SCORE_TILE][dim]
  const char **key_rows;
  const char **next_rows;
  int32_t *row_visible;
  float *weights;  // one tile, with log_sum_exp
} thread_scratch;

static void size_thread_scratch(job *j) {
  int32_t most_rows = 0;
  for (int32_t i = 0; i < j->wave.count; i++) {
    if (j->wave.ranges[i].rows > most_rows) most_rows = j->wave.ranges[i].rows;
  }
  const size_t rows = (size_t)most_rows;
  j->keys_bytes = aligned(sizeof(float) * CKV_SCORE_TILE * (size_t)j->dim);
  j->rows_bytes = aligned(sizeof(char *) * CKV_SCORE_TILE);
  j->visible_bytes = aligned(sizeof(int32_t) * rows);
  const size_t weights = j->normed ? sizeof(float) * CKV_SCORE_TILE * rows : 0;
  j->thread_bytes = j->keys_bytes + 2 * j->rows_bytes + j->visible_bytes + weights;
}

static thread_scratch scratch_of(const job *j, int32_t thread) {
  char *at = j->scratch + (size_t)thread * j->thread_bytes;
  thread_scratch scratch;
  scratch.keys = (float *)(void *)at;
  scratch.key_rows = (const char **)(void *)(at += j->keys_bytes);
  scratch.next_rows = (const char **)(void *)(at += j->rows_bytes);
  scratch.row_visible = (int32_t *)(void *)(at += j->rows_bytes);
  scratch.weights = (float *)(void *)(at + j->visible_bytes);
  return scratch;
}

// The range that a tile of the wave is in, or a block.
static const ckv_score_range *range_of(const job *j, int64_t at, bool is_block) {
  int32_t low = 0;
  for (int32_t high = j->wave.count; high - low > 1;) {
    const int32_t middle = low + (high - low) / 2;
    const ckv_score_range *range = &j->wave.ranges[middle];
    if ((is_block ? range->first_block : range->first_tile) <= at)
      low = middle;
    else
      high = middle;
  }
  return &j->wave.ranges[low];
}

static const ckv_score_range *range_of_tile(const job *j, int64_t tile) {
  return range_of(j, tile, false);
}

static const ckv_score_range *range_of_block(const job *j, int64_t block) {
  return range_of(j, block, true);
}

// Rows of block number `block` of the wave: [*first, *first + result) of its range.
static int32_t block_rows(const job *j, const ckv_score_range *range, int64_t block,
                          int32_t *first) {
  const int32_t size = j->kernels.rows->block_rows;
  *first = (int32_t)(block - range->first_block) * size;
  return range->rows - *first < size ? range->rows - *first : size;
}

static void take_log_sum_exp(job *j, const ckv_score_range *range, int32_t first, int32_t count) {
  const ckv_query_view *queries = j->plan.queries;
  for (int32_t r = first; r < first + count; r++) {
    const ckv_score_row at = ckv_score_row_at(&j->plan, range, r);
    const float value =
        queries
            ->log_sum_exp[((int64_t)range->b * queries->num_q_heads + at.head) * queries->window +
                          at.window_row];
    range->row_ref[r] = (float)((double)value * LOG2_E + 0.5);
    range->row_sum[r] = r < range->used ? 1.0f : 0.0f;
    if (!isfinite(value)) {
      ckv_score_fault_report(&j->fault, queries, range->b, at.head, at.window_row,
                             CKV_FAULT_NOT_FINITE);
    }
  }
}

static void pack_block(void *arg, int64_t index, int32_t thread) {
  job *j = arg;
  const ckv_score_range *range = range_of_block(j, index);
  int32_t first;
  int32_t count = block_rows(j, range, index, &first);
  // Ragged blocks are stored as blocks of one vector each.
  const int32_t step = count < j->kernels.rows->block_rows ? j->kernels.rows->lanes : count;
  for (int32_t r = first; r < first + count; r += step) {
    ckv_score_pack(&j->plan, range, r, step, j->kernels.pairs, scratch_of(j, thread).keys);
  }
  if (j->normed) take_log_sum_exp(j, range, first, count);
}

// Where the keys of tile number `tile` of the wave are; the result is their count.
static int32_t tile_keys(const job *j, int64_t tile, const char **rows) {
  if (tile >= j->wave.num_tiles) return 0;
  const ckv_score_range *range = range_of_tile(j, tile);
  const int32_t end = j->normed ? range->kv_len - range->window : range->kv_len;
  const int32_t from = (int32_t)(tile - range->first_tile) * CKV_SCORE_TILE;
  const int32_t count = end - from < CKV_SCORE_TILE ? end - from : CKV_SCORE_TILE;
  for (int32_t t = 0; t < count; t++) {
    rows[t] = ckv_row(j->plan.keys, range->b, range->g, from + t);
  }
  return count;
}

// Tokens of the tile that each row sees; NULL if that is all of them.
static const int32_t *visible_tokens(const job *j, const ckv_score_range *range, int32_t from,
                                     int32_t tokens, int32_t *visible) {
  const int32_t first_hidden = range->kv_len - range->window + 1;  // from the oldest window row
  if (j->normed || from + tokens <= first_hidden) return NULL;
  for (int32_t r = 0; r < range->rows; r++) {
    const int32_t last = range->used - 1;
    const int32_t row = (range->first_row + (r < last ? r : last)) % range->window;
    const int32_t seen = first_hidden + row - from;
    visible[r] = seen < 0 ? 0 : seen < tokens ? seen : tokens;
  }
  return visible;
}

static float *mass_of(const job *j, const ckv_score_range *range) {
  const ckv_kv_view *keys = j->plan.keys;
  return j->mass + ((int64_t)range->b * keys->num_kv_heads + range->g) * keys->kv_len;
}

// The rare path: which row made the sums of this tile NaN, or infinite by a log_sum_exp far below
// its logits.
static void find_fault(job *j, const ckv_score_range *range, const ckv_score_tile *tile) {
  const ckv_score_rows *kernels = j->kernels.rows;
  int32_t bad = 0;
  for (int32_t r = range->used - 1; r >= 0; r--) {
    const int32_t whole = range->rows / kernels->block_rows * kernels->block_rows;
    const int32_t width = r < whole ? kernels->block_rows : kernels->lanes;
    const float *row = tile->weights + (int64_t)(r / width * width) * CKV_SCORE_TILE + r % width;
    for (int32_t t = 0; t < tile->tokens; t++) {
      if (!(row[(int64_t)t * width] < 0x1p100f)) bad = r;
    }
  }
  const ckv_score_row at = ckv_score_row_at(&j->plan, range, bad);
  ckv_score_fault_report(&j->fault, j->plan.queries, range->b, at.head, at.window_row,
                         CKV_FAULT_NOT_FINITE);
}

static void score_tile(void *arg, int64_t index, int32_t thread) {
  job *j = arg;
  const thread_scratch scratch = scratch_of(j, thread);
  const ckv_score_range *range = range_of_tile(j, index);
  const int64_t number = index - range->first_tile;
  const int64_t rows = range->rows;
  const int32_t from = (int32_t)number * CKV_SCORE_TILE;
  ckv_score_tile tile = {
      .key_rows = scratch.key_rows,
      .next_rows = scratch.next_rows,
      .tokens = tile_keys(j, index, scratch.key_rows),
      // With equal threads, this is the tile that this thread gets next.
      .next_tokens = tile_keys(j, index + j->threads, scratch.next_rows),
      .head_dim = j->plan.keys->head_dim,
      .rows = range->rows,
      .queries = range->queries,
      .keys = scratch.keys,
      .weights = j->normed ? scratch.weights : range->weights + number * rows * CKV_SCORE_TILE,
      .row_ref = range->row_ref + (j->normed ? 0 : number * rows),
      .row_sum = range->row_sum + (j->normed ? 0 : number * rows),
      .logit_scale = j->logit_scale,
      .cap_scale = j->cap_scale,
      .capped = j->capped,
      .fixed_ref = j->normed,
  };
  tile.row_visible = visible_tokens(j, range, from, tile.tokens, scratch.row_visible);
  j->kernels.tile(&tile);
  if (!j->normed) return;
  float *mass = mass_of(j, range) + from;
  j->kernels.rows->mass(tile.weights, range->row_sum, range->rows, tile.tokens, mass);
  float sum = 0;
  for (int32_t t = 0; t < tile.tokens; t++) sum += mass[t];
  if (!isfinite(sum)) find_fault(j, range, &tile);
}

static void combine_block(void *arg, int64_t index, int32_t thread) {
  (void)thread;
  job *j = arg;
  const ckv_score_range *range = range_of_block(j, index);
  int32_t first;
  const int32_t count = block_rows(j, range, index, &first);
  j->kernels.rows->combine(range->row_ref, range->row_sum, range->num_tiles, range->rows,
                           range->used, first, count, range->total);
  for (int32_t r = first; r < first + count && r < range->used; r++) {
    const float total = range->total[r];
    if (total > 0 && total < INFINITY) continue;
    const ckv_score_row at = ckv_score_row_at(&j->plan, range, r);
    ckv_score_fault_report(&j->fault, j->plan.queries, range->b, at.head, at.window_row,
                           total == 0 ? CKV_FAULT_ALL_MASKED : CKV_FAULT_NOT_FINITE);
  }
}

static void sum_tile(void *arg, int64_t index, int32_t thread) {
  (void)thread;
  job *j = arg;
  const ckv_score_range *range = range_of_tile(j, index);
  const int64_t number = index - range->first_tile;
  const int32_t from = (int32_t)number * CKV_SCORE_TILE;
  const int32_t left = range->kv_len - (j->plan.all_tokens ? 0 : range->window) - from;
  if (left <= 0) return;
  j->kernels.rows->mass(range->weights + number * range->rows * CKV_SCORE_TILE,
                        range->row_ref + number * range->rows, range->rows,
                        left < CKV_SCORE_TILE ? left : CKV_SCORE_TILE, mass_of(j, range) + from);
}

static ckv_status run_wave(ckv_context *ctx, job *j) {
  size_thread_scratch(j);
  const size_t wave_bytes = aligned(j->wave.bytes);
  char *memory =
      ckv_scratch_get(ctx, CKV_SCRATCH_SCORE, wave_bytes + (size_t)j->threads * j->thread_bytes);
  if (!memory) return CKV_ERROR_OUT_OF_MEMORY;
  ckv_score_wave_place(&j->wave, &j->plan, memory);
  j->scratch = memory + wave_bytes;
  ckv_parallel_for(ctx->pool, j->wave.num_blocks, pack_block, j);
  ckv_parallel_for(ctx->pool, j->wave.num_tiles, score_tile, j);
  if (j->normed) return CKV_OK;
  ckv_parallel_for(ctx->pool, j->wave.num_blocks, combine_block, j);
  ckv_parallel_for(ctx->pool, j->wave.num_tiles, sum_tile, j);
  return CKV_OK;
}

static ckv_status score(ckv_context *ctx, const ckv_params *params, const ckv_query_view *queries,
                        const ckv_kv_view *keys, bool all_tokens, float *mass) {
  const ckv_score_kernels kernels = ckv_score_kernels_for(ctx->isa, keys->dtype, queries->dtype);
  if (!kernels.rows) return ckv_score_mass_serial(ctx, params, queries, keys, all_tokens, mass);

  const int32_t threads = ckv_thread_pool_size(ctx->pool);
  job j = {.plan = {.queries = queries,
                    .keys = keys,
                    .kernels = kernels.rows,
                    .all_tokens = all_tokens,
                    .threads = threads},
           .kernels = kernels,
           .mass = mass,
           .threads = threads,
           .dim = ckv_score_dim(keys->head_dim),
           .normed = queries->log_sum_exp != NULL};
  const double scale = params->scale != 0 ? (double)params->scale : 1 / sqrt(keys->head_dim);
  const double cap = (double)params->logit_softcap;
  j.capped = cap > 0;
  j.logit_scale = (float)((j.capped ? cap : scale) * LOG2_E);
  j.cap_scale = j.capped ? (float)(-2 * LOG2_E * scale / cap) : 0;
  atomic_init(&j.fault, CKV_SCORE_NO_FAULT);

  const int64_t heads = (int64_t)keys->batch * keys->num_kv_heads;
  memset(mass, 0, sizeof *mass * (size_t)(heads * keys->kv_len));
  while (ckv_score_next_wave(&j.plan, &j.wave)) {
    const ckv_status status = run_wave(ctx, &j);
    if (status) return status;
    const int64_t fault = atomic_load(&j.fault);
    if (fault != CKV_SCORE_NO_FAULT) return ckv_score_fault_status(ctx, queries, fault);
  }
  return CKV_OK;
}

ckv_status ckv_score_mass(ckv_context *ctx, const ckv_params *params, const ckv_query_view *queries,
                          const ckv_kv_view *keys, float *mass) {
  return score(ctx, params, queries, keys, false, mass);
}

ckv_status ckv_score_mass_of_all(ckv_context *ctx, const ckv_params *params,
                                 const ckv_query_view *queries, const ckv_kv_view *keys,
                                 float *mass) {
  return score(ctx, params, queries, keys, true, mass);
}
