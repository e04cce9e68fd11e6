// What the score kernels are given, and the order in which they take their work.
//
// A unit is one (layer, sequence, kv head, block of query rows); its keys are cut into items. Pass 1
// leaves each row's maximum and sum of an item; when all items of a unit are there, one thread block
// makes the rows' log-sum-exp of them; pass 2 sums exp(logit - log-sum-exp) over the rows for each
// token. Nothing depends on who does what: every sum has a fixed order.
//
// Work is taken by ticket. Pass 2 of a group of heads comes after pass 1 of the next group has begun,
// so that no one waits for the end of pass 1, and in reverse: the keys read last are still in the L2
// cache. A ticket waits only for lower ones, so some thread block can always go on.
#ifndef CKV_SCORE_ARGS_CUH
#define CKV_SCORE_ARGS_CUH

#include "device_view.cuh"

constexpr int CKV_SCORE_LAYERS = 32;  // per launch
constexpr int CKV_TILE_KEYS = 128;
constexpr int CKV_WGMMA_PAIRS = 2;  // of warpgroups that take tiles in turn, on Hopper, at most

struct ScoreLayer {
  const void *keys;
  const float *log_sum_exp;  // NULL: pass 1 finds it
};

struct ScoreArgs {
  KvShape keys;
  int32_t num_layers, group, window, rows;  // rows = group * window, per kv head
  int32_t row_block, row_blocks;            // query rows of a unit; units per kv head
  int32_t items, item_tiles;                // per unit and pass
  int32_t num_heads;                        // layers * batch * kv heads
  int32_t group_heads, delay;               // the order, see ckv_score_item
  int32_t tickets;
  int32_t packed_dim;  // of a query row, see score_prepare.cuh
  int32_t two_passes;
  float logit_scale;  // times q.k: the logit in units of log2
  float cap;          // > 0: soft cap in units of log2
  float cap_scale;    // times q.k: twice the argument of tanh, in units of log2
  uint32_t *fault, *ticket, *combine_ticket;
  uint32_t *pass1_done;  // [unit] arrivals
  float2 *maxima;        // [unit][item][slot][row]: maximum, sum
  float *log_sum_exp;    // [unit][row_block], units of log2; CKV_NOT_YET at first
  // 16-bit: [unit][row_block][packed_dim]. NULL, in one pass alone: the caller's, where they are.
  const uint8_t *queries;
  const float *unit_scale;  // [unit] what they were divided by; NULL with queries
  float *partial;           // [layer, batch, kv head, row block][partial_stride]
  int64_t partial_stride;
  ScoreLayer layers[CKV_SCORE_LAYERS];
};

constexpr uint32_t CKV_NOT_YET = 0xffffffffu;  // a NaN that no arithmetic makes

struct ScoreItem {
  int32_t pass;  // 1, 2; 0: nothing to do
  int32_t layer, batch, head, row_block, item;

  __device__ int32_t unit(const ScoreArgs &a) const {
    return ((layer * a.keys.batch + batch) * a.keys.num_kv_heads + head) * a.row_blocks + row_block;
  }
};

// Items that a sequence of n tokens has in a pass.
__device__ inline int32_t ckv_items_of(const ScoreArgs &a, int32_t pass, int32_t n) {
  if (n <= a.window) return 0;
  const int32_t keys = a.item_tiles * CKV_TILE_KEYS;
  return ((pass == 1 ? n : n - a.window) + keys - 1) / keys;
}

// The head that a count over layers, sequences and kv heads names.
__device__ inline ScoreItem ckv_head_at(const ScoreArgs &a, int32_t head) {
  ScoreItem item{};
  item.head = head % a.keys.num_kv_heads;
  head /= a.keys.num_kv_heads;
  item.batch = head % a.keys.batch;
  item.layer = head / a.keys.batch;
  return item;
}

// What a ticket stands for.
__device__ inline ScoreItem ckv_score_item(const ScoreArgs &a, int32_t ticket) {
  const int32_t of_head = a.items * a.row_blocks;
  const int32_t of_group = a.group_heads * of_head;  // in one pass
  ScoreItem item{};
  int32_t pass = 2, index = ticket, group = 0;
  if (a.two_passes) {
    pass = 1;
    if (ticket >= a.delay) {
      group = (ticket - a.delay) / (2 * of_group);
      index = (ticket - a.delay) % (2 * of_group);
      if (index < of_group) {
        index += a.delay;
        if (index >= of_group) group++, index -= of_group;
      } else {
        pass = 2;
        index = 2 * of_group - 1 - index;
      }
    }
  }
  const int32_t head = group * a.group_heads + index / of_head;
  if (head >= a.num_heads) return item;
  item = ckv_head_at(a, head);
  index %= of_head;
  item.row_block = index % a.row_blocks;
  item.item = index / a.row_blocks;
  if (item.item < ckv_items_of(a, pass, a.keys.len(item.batch))) item.pass = pass;
  return item;
}

#endif
