#include "chunk_plan.h"

#include <algorithm>

#include "workspace.h"

// Sums of one launch: enough layers at once to share its beginning and end, and no more memory than
// that. One layer that needs more takes the two passes.
static constexpr int64_t LAUNCH_BYTES = 128 << 20;
static constexpr int64_t TILE_BYTES = CKV_CHUNK_ROWS * (CKV_TILE_CHUNKS + 1) * 4;  // of a unit
static constexpr int32_t MAX_CHUNK = 512;
static constexpr int64_t MAX_TILES = 1 << 30;

static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Tokens of a chunk that a tile has, 0 for none: what the kernels are built for.
static int32_t positions_of(int32_t chunk_size) {
  return chunk_size > MAX_CHUNK ? 0 : chunk_size % 10 == 0 ? 10 : chunk_size % 8 == 0 ? 8 : 0;
}

static bool sums_chunks(const ckv_params *params) {
  return params->method == CKV_METHOD_CHUNKKV && params->spread <= 1 &&
         (params->chunk_reduce == CKV_REDUCE_SUM || params->chunk_reduce == CKV_REDUCE_MEAN);
}

// Whether the copy engine takes the rows of a unit as they are: some whole q heads' windows, of the keys'
// type. What is past a kv head's rows is the next one's, or zeros, and counts for nothing.
static bool takes_queries(const ckv_layer *layers, int32_t num_layers) {
  const ckv_query_view *q = layers[0].queries;
  int64_t bits = 0;
  if (q->window > 1) bits |= q->stride_row;
  if (q->num_q_heads > 1) bits |= q->stride_head;
  if (q->batch > 1) bits |= q->stride_batch;
  if (q->dtype != layers[0].keys->dtype || CKV_CHUNK_ROWS % q->window) return false;
  for (int32_t l = 0; l < num_layers; l++) {
    bits |= reinterpret_cast<intptr_t>(layers[l].queries->data);
  }
  return bits % 16 == 0;
}

bool ckv_chunk_plan(const ScoreDevice &device, const ckv_params *params, const ckv_layer *layers,
                    int32_t num_layers, ChunkPlan *plan) {
  *plan = {};
  const ckv_kv_view *keys = layers[0].keys;
  if (!device.hopper || !sums_chunks(params) || keys->block_size || keys->kv_lens ||
      keys->head_dim > 128 || layers[0].queries->log_sum_exp ||
      !ckv_score_plan(device, params, layers, num_layers, &plan->score)) {
    return false;
  }
  const int32_t c = params->chunk_size, scored = keys->kv_len - params->window;
  plan->positions = positions_of(c);
  if (!plan->score.tensor || scored < 1 || plan->positions == 0 ||
      divide_up(scored, c) * c > keys->kv_len) {
    return false;  // the last chunk is read to its end, even where that is the window's
  }
  plan->own_queries = takes_queries(layers, num_layers);
  plan->score.steps = keys->head_dim <= 64 ? 4 : keys->head_dim <= 96 ? 6 : 8;
  ChunkArgs &a = plan->args;
  a.score = plan->score.args;
  a.score.packed_dim = 16 * plan->score.steps;
  a.score.row_block = CKV_CHUNK_ROWS;  // fewer rows cost no more: keys are what is waited for
  a.score.row_blocks = static_cast<int32_t>(divide_up(a.score.rows, CKV_CHUNK_ROWS));
  a.scored = scored;
  a.chunk_size = c;
  a.parts = c / plan->positions;
  const int64_t tiles = divide_up(divide_up(scored, c), CKV_TILE_CHUNKS) * a.parts;
  plan->units_of_layer =
      static_cast<int64_t>(keys->batch) * keys->num_kv_heads * a.score.row_blocks;
  if (plan->units_of_layer * (tiles + 1) > MAX_TILES / CKV_CHUNK_LAYERS) return false;
  a.tiles = static_cast<int32_t>(tiles);
  if (plan->units_of_layer * tiles * TILE_BYTES > LAUNCH_BYTES) return false;
  ckv_chunk_room(device, num_layers, CKV_CHUNK_LAYERS, plan);
  return true;
}

void ckv_chunk_room(const ScoreDevice &device, int32_t num_layers, int32_t most, ChunkPlan *plan) {
  const int64_t rows_of_layer = plan->units_of_layer * CKV_CHUNK_ROWS, tiles = plan->args.tiles;
  plan->layers = static_cast<int32_t>(std::clamp<int64_t>(
      LAUNCH_BYTES / (plan->units_of_layer * tiles * TILE_BYTES), 1, std::min(num_layers, most)));
  const int64_t units = plan->layers * plan->units_of_layer, all_rows = num_layers * rows_of_layer;
  CkvWorkspaceCursor at;
  plan->counters = at.take(4 * (2 + units));
  // ckv_chunk_cut: units times slots, for any number of layers.
  plan->maxima = at.take((2 * device.multiprocessors + 6 * units) * CKV_CHUNK_ROWS * 8);
  plan->log_sum_exp = at.take(all_rows * 4);
  plan->unit_scale = at.take(num_layers * plan->units_of_layer * 4);
  plan->packed = at.take(all_rows * plan->args.score.packed_dim * 2);
  plan->sums = at.take(units * tiles * CKV_CHUNK_ROWS * 64);
  plan->bases = at.take(units * tiles * CKV_CHUNK_ROWS * 4);
  plan->end = at.end;
}

void ckv_chunk_cut(const ChunkPlan &plan, const ScoreDevice &device, int32_t num_layers,
                   ChunkArgs *args) {
  ChunkArgs &a = *args;
  a = plan.args;
  a.score.num_layers = num_layers;
  a.score.num_heads = num_layers * a.score.keys.batch * a.score.keys.num_kv_heads;
  const int32_t units = a.score.num_heads * a.score.row_blocks;
  a.total = units * a.of_unit();
  a.blocks = std::min(a.total, device.multiprocessors);
  // A unit meets blocks / units of them, and one more at either end.
  a.slots = CKV_CHUNK_PAIRS * (a.blocks / units + 3);
}
