// Window attention on any card since sm_80: eight warps share a tile, four of 32 keys by two of 32
// query rows, products by mma.sync; a ninth makes log-sum-exps. Passes, items and their order are those of score_args.cuh.
#ifndef CKV_SCORE_MMA_CUH
#define CKV_SCORE_MMA_CUH

#include "mma.cuh"
#include "score_epilogue.cuh"
#include "score_load.cuh"

constexpr int CKV_MMA_THREADS = 256;
constexpr int CKV_MMA_ROWS = 64;

template <int STEPS>
struct MmaTiles {
  static constexpr int PANELS = (STEPS + 3) / 4;
  static constexpr int QUERY_BYTES = CKV_MMA_ROWS * 128 * PANELS;
  static constexpr int KEY_BYTES = CKV_TILE_KEYS * 128 * PANELS;
  static constexpr int STAGES = STEPS > 8 ? 1 : 2;  // 99 KiB is all that some cards have
  static constexpr int BYTES = QUERY_BYTES + STAGES * KEY_BYTES;
};

struct MmaShared {
  union {
    float2 rows[4][CKV_MMA_ROWS];  // pass 1: of each warp of keys
    float keys[2][CKV_TILE_KEYS];  // pass 2: of each warp of rows
  };
  float norms[CKV_MMA_ROWS];
  int32_t ticket;
};

template <int STEPS, bool COPY, typename T>
struct MmaBlock {
  using Tiles = MmaTiles<STEPS>;
  const ScoreArgs &a;
  MmaShared &shared;
  uint32_t queries, keys;
  int warp, lane;

  __device__ static void sync() { ckv_barrier(1, CKV_MMA_THREADS); }
  __device__ int row_warp() const { return warp % 2; }
  __device__ int key_warp() const { return warp / 2; }

  __device__ void load_keys(const ScoreItem &item, int32_t first, int32_t n, int stage) {
    ckv_load_keys<STEPS, 8, COPY, T>(a, item, first, n, keys + stage * Tiles::KEY_BYTES, warp,
                                     lane);
  }

  // acc[8 key groups of 8 of 32][..]: rows 32 row_warp + 16 m, keys 32 key_warp + 8 j.
  __device__ void multiply(float (&acc)[2][16], int stage) {
    const uint32_t tile = keys + stage * Tiles::KEY_BYTES;
#pragma unroll
    for (int i = 0; i < 32; i++) acc[i / 16][i % 16] = 0;
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
      const uint32_t piece = step % 4 * 2;
      uint32_t rows[2][4], cols[2][4];
#pragma unroll
      for (int m = 0; m < 2; m++) {
        const uint32_t row = row_warp() * 32 + m * 16 + lane % 16;
        ckv_load_matrix(rows[m], queries + step / 4 * (CKV_MMA_ROWS * 128) +
                                     ckv_swizzle(row, piece + lane / 16));
        const uint32_t key = key_warp() * 32 + m * 16 + lane / 16 * 8 + lane % 8;
        ckv_load_matrix(cols[m], tile + step / 4 * (CKV_TILE_KEYS * 128) +
                                     ckv_swizzle(key, piece + lane / 8 % 2));
      }
#pragma unroll
      for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
          ckv_mma(&acc[m][4 * j], rows[m], cols[j / 2][j % 2 * 2], cols[j / 2][j % 2 * 2 + 1], T{});
        }
      }
    }
  }

  template <typename Use>
  __device__ void each_tile(const ScoreItem &item, int32_t n, int32_t first, int32_t last,
                            Use use) {
    ckv_load_queries<STEPS, CKV_MMA_ROWS, 8, T>(a, item, queries, warp, lane);
    load_keys(item, first, n, 0);
    ckv_copy_commit();
    int stage = 0;
    for (int32_t t = first; t < last; t += CKV_TILE_KEYS) {
      if (Tiles::STAGES > 1) {
        if (t + CKV_TILE_KEYS < last) load_keys(item, t + CKV_TILE_KEYS, n, stage ^ 1);
        ckv_copy_commit();
        ckv_copy_wait<1>();
      } else {
        if (t > first) load_keys(item, t, n, 0);
        ckv_copy_commit();
        ckv_copy_wait<0>();
      }
      sync();
      float acc[2][16];
      multiply(acc, stage);
      use(acc, t);
      sync();
      if (Tiles::STAGES > 1) stage ^= 1;
    }
  }

  __device__ void sum_rows(const ScoreItem &item, int32_t n, int32_t first, int32_t last) {
    const float by = a.unit_scale[item.unit(a)];
    RowSum rows[4];
    each_tile(item, n, first, last, [&](float (&acc)[2][16], int32_t tile) {
      float scale = 1;
#pragma unroll
      for (int m = 0; m < 2; m++) {
        scale = ckv_cap_logits(a, by, acc[m]);
        if (tile + CKV_TILE_KEYS > n - a.window) {
          const int32_t row = item.row_block * CKV_MMA_ROWS + row_warp() * 32 + m * 16 + lane / 4;
          const int32_t column = tile + key_warp() * 32 + lane % 4 * 2;
#pragma unroll
          for (int i = 0; i < 16; i++) {
            const int32_t sees = n - a.window + (row + i % 4 / 2 * 8) % a.window;
            if (column + i / 4 * 8 + i % 2 > sees) acc[m][i] = CKV_NONE;
          }
        }
        ckv_add_row<0>(rows[2 * m], acc[m], scale);
        ckv_add_row<2>(rows[2 * m + 1], acc[m], scale);
      }
    });
#pragma unroll
    for (int i = 0; i < 4; i++) {
      rows[i].merge_quad();
      const int row = row_warp() * 32 + i * 8 + lane / 4;
      if (lane % 4 == 0) shared.rows[key_warp()][row] = make_float2(rows[i].max, rows[i].sum);
    }
    sync();
    const int32_t unit = item.unit(a);
    if (threadIdx.x < CKV_MMA_ROWS) {
      RowSum all;
      for (int w = 0; w < 4; w++) {
        all.merge(shared.rows[w][threadIdx.x].x, shared.rows[w][threadIdx.x].y);
      }
      __stcg(a.maxima + (static_cast<int64_t>(unit) * a.items + item.item) * CKV_MMA_ROWS +
                 threadIdx.x,
             make_float2(all.max, all.sum));
    }
    sync();
    if (threadIdx.x == 0) ckv_add_release(&a.pass1_done[unit], 1);
  }

  __device__ void sum_keys(const ScoreItem &item, int32_t n, int32_t first, int32_t last) {
    if (threadIdx.x < CKV_MMA_ROWS) {
      shared.norms[threadIdx.x] = ckv_row_norm(a, item, threadIdx.x);
    }
    sync();
    float norm[4];
#pragma unroll
    for (int i = 0; i < 4; i++) norm[i] = shared.norms[row_warp() * 32 + i * 8 + lane / 4];
    const float by = a.unit_scale[item.unit(a)];
    float *partial = ckv_partial(a, item, item.head * a.row_blocks + item.row_block);
    each_tile(item, n, first, last, [&](float (&acc)[2][16], int32_t tile) {
      float sum[8] = {};
#pragma unroll
      for (int m = 0; m < 2; m++) {
        const float scale = ckv_cap_logits(a, by, acc[m]);
#pragma unroll
        for (int i = 0; i < 16; i++) {
          sum[i / 4 * 2 + i % 2] += ckv_exp2(fmaf(acc[m][i], scale, norm[2 * m + i % 4 / 2]));
        }
      }
      // Over the eight rows of the warp: each step halves the keys that a thread has.
#pragma unroll
      for (int half = 4; half; half /= 2) {
        const bool upper = lane & (half * 4);
#pragma unroll
        for (int i = 0; i < half; i++) {
          const float give = upper ? sum[i] : sum[i + half];
          sum[i] = (upper ? sum[i + half] : sum[i]) + __shfl_xor_sync(0xffffffffu, give, half * 4);
        }
      }
      // What is left belongs to element lane / 4 of the eight: group of eight keys, odd or even.
      const int element = lane / 4;
      shared.keys[row_warp()][key_warp() * 32 + element / 2 * 8 + lane % 4 * 2 + element % 2] =
          sum[0];
      sync();
      if (threadIdx.x < CKV_TILE_KEYS && tile + threadIdx.x < n - a.window) {
        __stcg(partial + tile + threadIdx.x,
               shared.keys[0][threadIdx.x] + shared.keys[1][threadIdx.x]);
      }
    });
  }

  __device__ void run() {
    for (;;) {
      if (threadIdx.x == 0) shared.ticket = static_cast<int32_t>(atomicAdd(a.ticket, 1u));
      sync();
      const int32_t ticket = shared.ticket;
      sync();
      if (ticket >= a.tickets) return;
      const ScoreItem item = ckv_score_item(a, ticket);
      if (item.pass == 0) continue;
      const int32_t n = a.keys.len(item.batch);
      const int32_t first = item.item * a.item_tiles * CKV_TILE_KEYS;
      const int32_t last =
          min(item.pass == 1 ? n : n - a.window, first + a.item_tiles * CKV_TILE_KEYS);
      if (item.pass == 1) {
        sum_rows(item, n, first, last);
      } else {
        sum_keys(item, n, first, last);
      }
    }
  }
};

template <int STEPS, bool COPY, typename T>
__global__ void __launch_bounds__(CKV_MMA_THREADS + 32)
    ckv_score_mma_kernel(const __grid_constant__ ScoreArgs a) {
  __shared__ MmaShared shared;
  extern __shared__ __align__(16) uint8_t memory[];
  ckv_chain();
  const uint32_t queries = ckv_smem(memory);
  MmaBlock<STEPS, COPY, T> block{a,
                                 shared,
                                 queries,
                                 queries + MmaTiles<STEPS>::QUERY_BYTES,
                                 static_cast<int>(threadIdx.x / 32),
                                 static_cast<int>(threadIdx.x % 32)};
  if (threadIdx.x < CKV_MMA_THREADS) {
    block.run();
  } else if (a.two_passes) {
    ckv_combine_units<CKV_MMA_ROWS>(a, 1, 1, threadIdx.x % 32);
  }
}

#endif
