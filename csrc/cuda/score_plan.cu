#include "score_plan.h"

#include <algorithm>
#include <cmath>

#include "workspace.h"

static constexpr double LOG2_E = 1.4426950408889634;
// Partial sums of one launch: enough layers at once to fill the card, few enough to stay small.
static constexpr int64_t LAUNCH_BYTES = 64 << 20;

static int32_t divide_up(int64_t a, int64_t b) { return static_cast<int32_t>((a + b - 1) / b); }

static bool aligned(const ckv_layer *layers, int32_t num_layers) {
  const ckv_kv_view *k = layers[0].keys;
  int64_t bits =
      k->stride_batch | k->stride_head | k->stride_token | k->stride_block | k->head_dim * 2;
  for (int32_t l = 0; l < num_layers; l++) bits |= reinterpret_cast<intptr_t>(layers[l].keys->data);
  return bits % 16 == 0;
}

static void plan_order(const ScoreDevice &device, int32_t tiles, ScoreArgs *a) {
  const int64_t all_tiles = static_cast<int64_t>(tiles) * a->num_heads * a->row_blocks;
  // Items small enough that processors end together and pass 2 can follow closely. Each one costs Hopper's
  // kernel a microsecond or so by itself; of the other one several thread blocks share a processor.
  const int64_t turn = 2 * device.multiprocessors;  // items until all of a turn are done
  const int64_t items = device.hopper ? turn : 2 * turn, most = device.hopper ? 16 : 8;
  a->item_tiles =
      static_cast<int32_t>(std::clamp<int64_t>((all_tiles + items / 2) / items, 1, most));
  a->items = std::max(1, divide_up(tiles, a->item_tiles));
  const int32_t of_head = a->items * a->row_blocks;
  a->group_heads =
      static_cast<int32_t>(std::clamp<int64_t>((turn + of_head / 2) / of_head, 1, a->num_heads));
  const int32_t of_group = of_head * a->group_heads;
  a->delay = static_cast<int32_t>(std::min<int64_t>(of_group, turn));
  const int32_t groups = divide_up(a->num_heads, a->group_heads);
  a->tickets = a->two_passes ? a->delay + 2 * groups * of_group : a->num_heads * of_head;
}

bool ckv_score_plan(const ScoreDevice &device, const ckv_params *params, const ckv_layer *layers,
                    int32_t num_layers, ScorePlan *plan) {
  const ckv_kv_view *keys = layers[0].keys;
  const ckv_query_view *queries = layers[0].queries;
  if (keys->head_dim > 256) return false;
  *plan = {};
  ScoreArgs &a = plan->args;
  a.keys = ckv_shape_of(keys);
  a.group = queries->num_q_heads / keys->num_kv_heads;
  a.window = params->window;
  a.rows = a.group * a.window;
  const int32_t wide = divide_up(a.rows, 128) * 128, narrow = divide_up(a.rows, 64) * 64;
  a.row_block = device.hopper && wide <= narrow ? 128 : 64;
  a.row_blocks = divide_up(a.rows, a.row_block);
  a.two_passes = !queries->log_sum_exp;
  const double scale = params->scale != 0 ? params->scale : 1 / std::sqrt(keys->head_dim);
  a.logit_scale = static_cast<float>(scale * LOG2_E);
  if (params->logit_softcap > 0) {
    a.cap = static_cast<float>(params->logit_softcap * LOG2_E);
    a.cap_scale = static_cast<float>(2 * LOG2_E * scale / params->logit_softcap);
  }

  // What kernels are built for: every common head_dim on Hopper, fewer elsewhere.
  for (const int32_t steps : {4, 5, 6, 8, 16}) {
    if (!device.hopper && (steps == 5 || steps == 6)) continue;
    plan->steps = steps;
    if (steps * 16 >= keys->head_dim) break;
  }
  plan->bf16 = keys->dtype == CKV_BF16;
  plan->copy = (plan->bf16 || keys->dtype == CKV_F16) && aligned(layers, num_layers);
  a.packed_dim = plan->steps * 16;
  const int32_t rows = keys->block_size;
  plan->tensor = device.hopper && plan->copy &&
                 (rows == 0 || (rows >= 8 && (128 % rows == 0 || rows % 128 == 0)));

  const int32_t tiles = divide_up(keys->kv_len, CKV_TILE_KEYS);
  a.partial_stride = (keys->kv_len + 31) / 32 * 32;
  const int64_t parts_of_layer =
      static_cast<int64_t>(keys->batch) * keys->num_kv_heads * a.row_blocks;
  const int64_t bytes_of_layer = parts_of_layer * a.partial_stride * 4;
  plan->layers =
      static_cast<int32_t>(std::clamp<int64_t>(LAUNCH_BYTES / std::max<int64_t>(1, bytes_of_layer),
                                               1, std::min<int32_t>(num_layers, CKV_SCORE_LAYERS)));
  a.num_layers = plan->layers;
  a.num_heads = plan->layers * keys->batch * keys->num_kv_heads;
  plan_order(device, tiles, &a);

  const int64_t units = static_cast<int64_t>(plan->layers) * parts_of_layer;
  const int32_t row_slots = device.hopper ? CKV_WGMMA_PAIRS * (a.row_block == 64 ? 2 : 1) : 1;
  CkvWorkspaceCursor at;
  plan->counters = at.take(4 * (2 + units));
  plan->maxima = at.take(a.two_passes ? units * a.items * row_slots * a.row_block * 8 : 0);
  plan->log_sum_exp = at.take(units * a.row_block * 4);
  plan->unit_scale = at.take(units * 4);
  plan->packed = at.take(units * a.row_block * a.packed_dim * 2);
  plan->partial = at.take(units * a.partial_stride * 4);
  plan->end = at.end;
  return true;
}
