// The two warpgroups that multiply and sum.
#ifndef CKV_WGMMA_CONSUMER_CUH
#define CKV_WGMMA_CONSUMER_CUH

#include "wgmma_shared.cuh"

template <int STEPS, int ROWS, KeyPath PATH, typename T>
struct WgmmaConsumer {
  using Tiles = WgmmaTiles<STEPS, ROWS>;
  using Shared = WgmmaShared<Tiles::STAGES, Tiles::QUERIES>;
  static constexpr int ACC = ROWS / 2;
  // Where keys lie in a tile: panels side by side in each eight rows, or one after the other.
  static constexpr bool BLOCKS = PATH == KeyPath::BLOCKS;
  static constexpr int KEY_GROUP = BLOCKS ? Tiles::PANELS * 1024 : 1024;
  static constexpr int KEY_PANEL = BLOCKS ? 1024 : CKV_TILE_KEYS * 128;
  // Two slots of row maxima where the consumers halve the keys, else one.
  static constexpr int ROW_SLOTS = ROWS == 64 ? 2 : 1;
  const ScoreArgs &a;
  Shared &shared;
  uint32_t queries, keys;
  int group, warp, lane;  // of two; of four; of 32
  int stage = 0, phase = 0, norms_phase = 0;

  __device__ void release(int which) {
    if (lane == 0) ckv_mbarrier_arrive(&shared.empty[which]);
  }

  // The product of this warpgroup's part of the next tile starts.
  template <int PASS>
  __device__ void multiply(float (&acc)[ACC], uint32_t query_tile) {
    ckv_mbarrier_wait(&shared.full[stage], phase);
    const uint32_t key_tile = keys + stage * Tiles::KEY_BYTES;
    constexpr bool HALVE_ROWS = PASS == 1 && ROWS == 128;
    const uint32_t q = query_tile + (HALVE_ROWS ? group * 64 * 128 : 0);
    const uint32_t k = key_tile + (HALVE_ROWS ? 0 : group * 8 * KEY_GROUP);
    ckv_fence_async();  // the tile was written by ordinary copies
    ckv_pin(acc);
    ckv_wgmma_fence();
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
      const uint32_t at = step % 4 * 32;
      const uint64_t q_tile = ckv_tile_descriptor(q + step / 4 * (ROWS * 128) + at);
      const uint64_t k_tile = ckv_tile_descriptor(k + step / 4 * KEY_PANEL + at, KEY_GROUP);
      ckv_wgmma(acc, PASS == 1 ? q_tile : k_tile, PASS == 1 ? k_tile : q_tile, step > 0, T{});
    }
    ckv_wgmma_commit();
    if (++stage == Tiles::STAGES) stage = 0, phase ^= 1;
  }

  // Each tile's product, then what `use(acc, tile)` makes of it while the next one runs.
  template <int PASS, typename Use>
  __device__ void each_tile(int32_t tiles, uint32_t query_tile, Use use) {
    // Written out: the compiler must see which product writes which registers.
    float even[ACC], odd[ACC];
    int held = stage;
    multiply<PASS>(even, query_tile);
    for (int32_t i = 1;; i += 2) {
      if (i >= tiles) {
        ckv_wgmma_wait<0>();
        ckv_pin(even);
        release(held);
        use(even, i - 1);
        return;
      }
      int next = stage;
      multiply<PASS>(odd, query_tile);
      ckv_wgmma_wait<1>();
      ckv_pin(even);
      release(held);
      held = next;
      use(even, i - 1);
      if (i + 1 >= tiles) {
        ckv_wgmma_wait<0>();
        ckv_pin(odd);
        release(held);
        use(odd, i);
        return;
      }
      next = stage;
      multiply<PASS>(even, query_tile);
      ckv_wgmma_wait<1>();
      ckv_pin(odd);
      release(held);
      held = next;
      use(odd, i);
    }
  }

  __device__ float unit_scale(const ScoreItem &item) const { return a.unit_scale[item.unit(a)]; }

  // Pass 1: this thread's two rows over the keys of the item.
  __device__ void sum_rows(const ScoreItem &item, int32_t n, int32_t first, int32_t tiles,
                           uint32_t query_tile) {
    const int32_t row = (ROWS == 128 ? group * 64 : 0) + warp * 16 + lane / 4;
    const int32_t index = item.row_block * ROWS + row;
    // The last key that a row sees, the first that the last row of all does not.
    const int32_t sees0 = n - a.window + index % a.window;
    const int32_t sees1 = n - a.window + (index + 8) % a.window;
    const float by = unit_scale(item);
    const int32_t column = first + (ROWS == 64 ? group * 64 : 0) + lane % 4 * 2;
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
    const int32_t slot = item.item * ROW_SLOTS + (ROWS == 64 ? group : 0);
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
    float norm[ROWS / 4];
#pragma unroll
    for (int j = 0; j < ROWS / 8; j++) {
      norm[2 * j] = shared.norms[at][8 * j + lane % 4 * 2];
      norm[2 * j + 1] = shared.norms[at][8 * j + lane % 4 * 2 + 1];
    }
    const float by = unit_scale(item);
    float *partial = ckv_partial(a, item, item.head * a.row_blocks + item.row_block);
    const int32_t key = first + group * 64 + warp * 16 + lane / 4;
    each_tile<2>(tiles, query_tile, [&](float (&acc)[ACC], int32_t tile) {
      const float scale = ckv_cap_logits(a, by, acc);
      float sum[4] = {};
#pragma unroll
      for (int i = 0; i < ACC; i++) {
        sum[i % 4] += ckv_exp2(fmaf(acc[i], scale, norm[i / 4 * 2 + i % 2]));
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
