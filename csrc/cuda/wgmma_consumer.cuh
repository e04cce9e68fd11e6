// The warpgroups that multiply and sum.
#ifndef CKV_WGMMA_CONSUMER_CUH
#define CKV_WGMMA_CONSUMER_CUH

#include "wgmma_shared.cuh"

// Pairs of them take tiles in turn, the two of a pair share a tile.
template <int STEPS, int ROWS, KeyPath PATH, typename T>
struct WgmmaConsumer {
  using Tiles = WgmmaTiles<STEPS, ROWS>;
  using Shared = WgmmaShared<Tiles::STAGES, Tiles::QUERIES>;
  static constexpr int ACC = ROWS / 2;
  // Where keys lie in a tile: panels side by side in each eight rows, or one after the other.
  static constexpr bool BLOCKS = PATH == KeyPath::BLOCKS;
  static constexpr int KEY_GROUP = BLOCKS ? Tiles::PANELS * 1024 : 1024;
  static constexpr int KEY_PANEL = BLOCKS ? 1024 : CKV_TILE_KEYS * 128;
  // Slots of row maxima: one for every other tile, and for each of a pair where the two halve the keys.
  static constexpr int OF_PAIR = ROWS == 64 ? 2 : 1;
  static constexpr int PAIRS = WgmmaCrew<PATH>::PAIRS, ROW_SLOTS = PAIRS * OF_PAIR;
  const ScoreArgs &a;
  Shared &shared;
  uint32_t queries, keys;
  int pair, group, warp, lane;  // the pair; of its two; of four; of 32
  int stage = 0, phase = 0, norms_phase = 0;
  int next = 0;        // pair whose tile the next one is
  int turn_phase = 0;  // of this pair's turns

  // The product of this warpgroup's part of the tile.
  template <int PASS>
  __device__ void multiply(float (&acc)[ACC], uint32_t query_tile) {
    const uint32_t key_tile = keys + stage * Tiles::KEY_BYTES;
    constexpr bool HALVE_ROWS = PASS == 1 && ROWS == 128;
    const uint32_t q = query_tile + (HALVE_ROWS ? group * 64 * 128 : 0);
    const uint32_t k = key_tile + (HALVE_ROWS ? 0 : group * 8 * KEY_GROUP);
    const uint64_t q_first = ckv_tile_descriptor(q), k_first = ckv_tile_descriptor(k, KEY_GROUP);
    ckv_fence_async();  // the tile was written by ordinary copies
    ckv_pin(acc);
    ckv_wgmma_fence();
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
      const uint32_t at = step % 4 * 32;
      const uint64_t q_tile = ckv_further(q_first, step / 4 * (ROWS * 128) + at);
      const uint64_t k_tile = ckv_further(k_first, step / 4 * KEY_PANEL + at);
      ckv_wgmma(acc, PASS == 1 ? q_tile : k_tile, PASS == 1 ? k_tile : q_tile, step > 0, T{});
    }
    ckv_wgmma_commit();
    ckv_wgmma_wait<0>();
    ckv_pin(acc);
  }

  // The tensor cores are this pair's once the other's product is there; the first pair begins.
  __device__ void take_turn() {
    if (PAIRS == 1) return;
    ckv_mbarrier_wait(&shared.turn[pair], turn_phase ^ (pair == 0));
    turn_phase ^= 1;
  }
  __device__ void give_turn() {
    if (PAIRS > 1 && lane == 0) ckv_mbarrier_arrive(&shared.turn[pair ^ 1]);
  }

  // Each tile that is this pair's: its product, then what `use(acc, tile)` makes of it. Every pair waits
  // for every tile and lets go of it, so that none is ever a round ahead or behind.
  template <int PASS, typename Use>
  __device__ void each_tile(int32_t tiles, uint32_t query_tile, Use use) {
    for (int32_t i = 0; i < tiles; i++) {
      const bool own = next == pair;
      if (PAIRS > 1) next ^= 1;
      float acc[ACC];
      ckv_mbarrier_wait(&shared.full[stage], phase);
      if (own) {
        take_turn();
        multiply<PASS>(acc, query_tile);
        give_turn();
      }
      if (lane == 0) ckv_mbarrier_arrive(&shared.empty[stage]);
      if (++stage == Tiles::STAGES) stage = 0, phase ^= 1;
      if (own) use(acc, i);
    }
  }

  __device__ float unit_scale(const ScoreItem &item) const { return a.unit_scale[item.unit(a)]; }

  // Pass 1: this thread's two rows over the keys of the pair's tiles.
  __device__ void sum_rows(const ScoreItem &item, int32_t n, int32_t first, int32_t tiles,
                           uint32_t query_tile) {
    const int32_t row = (ROWS == 128 ? group * 64 : 0) + warp * 16 + lane / 4;
    const int32_t index = item.row_block * ROWS + row;
    // The last key that a row sees, the first that the last row of all does not.
    const int32_t sees0 = n - a.window + index % a.window;
    const int32_t sees1 = n - a.window + (index + 8) % a.window;
    const float by = unit_scale(item);
    const int32_t column = first + (ROWS == 64 ? group * 64 : 0) + lane % 4 * 2;
    // Which tiles are a pair's changes from run to run; a slot has every other one of the item all the
    // same, or sums would be rounded in another order.
    const int turn = PAIRS > 1 ? pair ^ next : 0;
    RowSum row0, row1;
    each_tile<1>(tiles, query_tile, [&](float (&acc)[ACC], int32_t tile) {
      const float scale = ckv_cap_logits(a, by, acc);
      const int32_t t = column + tile * CKV_TILE_KEYS;
      if (first + (tile + 1) * CKV_TILE_KEYS > n - a.window) {
#pragma unroll
        for (int i = 0; i < ACC; i++) {
          if (t + i / 4 * 8 + i % 2 > (i % 4 < 2 ? sees0 : sees1)) acc[i] = CKV_NONE;
        }
      }
      ckv_add_row<0>(row0, acc, scale);
      ckv_add_row<2>(row1, acc, scale);
    });
    row0.merge_quad();
    row1.merge_quad();
    const int32_t unit = item.unit(a);
    const int32_t slot = item.item * ROW_SLOTS + turn * OF_PAIR + (ROWS == 64 ? group : 0);
    if (lane % 4 == 0) {
      float2 *at =
          a.maxima + (static_cast<int64_t>(unit) * a.items * ROW_SLOTS + slot) * ROWS + row;
      __stcg(at, make_float2(row0.max, row0.sum));
      __stcg(at + 8, make_float2(row1.max, row1.sum));
    }
    __syncwarp();
    if (lane == 0) ckv_add_release(&a.pass1_done[unit], 1);
  }

  // Pass 2: this thread's two keys of each tile over all rows.
  __device__ void sum_keys(const ScoreItem &item, int32_t n, int32_t first, int32_t tiles,
                           uint32_t query_tile, int at) {
    ckv_mbarrier_wait(&shared.norms_full[at], norms_phase);
    const float2 *norms = reinterpret_cast<const float2 *>(shared.norms[at]) + lane % 4;
    const float by = unit_scale(item);
    float *partial = ckv_partial(a, item, item.head * a.row_blocks + item.row_block);
    const int32_t key = first + group * 64 + warp * 16 + lane / 4;
    each_tile<2>(tiles, query_tile, [&](float (&acc)[ACC], int32_t tile) {
      const float scale = ckv_cap_logits(a, by, acc);
      float sum[4] = {};
#pragma unroll
      for (int i = 0; i < ACC; i += 4) {
        const float2 norm = norms[i];  // four pairs are eight rows
        sum[0] += ckv_exp2(fmaf(acc[i], scale, norm.x));
        sum[1] += ckv_exp2(fmaf(acc[i + 1], scale, norm.y));
        sum[2] += ckv_exp2(fmaf(acc[i + 2], scale, norm.x));
        sum[3] += ckv_exp2(fmaf(acc[i + 3], scale, norm.y));
      }
      float low = sum[0] + sum[1], high = sum[2] + sum[3];
#pragma unroll
      for (int other = 1; other <= 2; other *= 2) {
        low += __shfl_xor_sync(0xffffffffu, low, other);
        high += __shfl_xor_sync(0xffffffffu, high, other);
      }
      const int32_t t = key + tile * CKV_TILE_KEYS;
      if (lane % 4 == 0) {
        if (t < n - a.window) __stcg(partial + t, low);
        if (t + 8 < n - a.window) __stcg(partial + t + 8, high);
      }
    });
  }

  __device__ void run() {
    for (int taken = 0;; taken++) {
      const int at = taken % CKV_WGMMA_ITEMS, slot = taken % Tiles::QUERIES;
      norms_phase = taken / CKV_WGMMA_ITEMS & 1;
      ckv_mbarrier_wait(&shared.item_full[at], norms_phase);
      const ScoreItem item = shared.items[at];
      if (item.pass == 0) return;
      const int32_t n = a.keys.len(item.batch);
      const int32_t first = item.item * a.item_tiles * CKV_TILE_KEYS;
      const int32_t keys_here =
          min(item.pass == 1 ? n : n - a.window, first + a.item_tiles * CKV_TILE_KEYS) - first;
      const int32_t tiles = (keys_here + CKV_TILE_KEYS - 1) / CKV_TILE_KEYS;
      const uint32_t query_tile = queries + slot * Tiles::QUERY_BYTES;
      if (item.pass == 1) {
        sum_rows(item, n, first, tiles, query_tile);
      } else {
        sum_keys(item, n, first, tiles, query_tile, at);
      }
      ckv_mbarrier_arrive(&shared.query_empty[slot]);
      ckv_mbarrier_arrive(&shared.item_empty[at]);
    }
  }
};

#endif
