// Window attention on Hopper: one warpgroup brings tiles of keys, two multiply and sum them.
//
// Both consumers take every tile of 128 keys. Pass 1: rows of queries x keys, so that a thread sees
// whole rows and the maximum needs no shuffle; pass 2: keys x rows, so that it sees whole keys and
// the sum over rows needs none. A consumer gives the tensor cores the next tile before it works on
// the last one's exponentials.
#ifndef CKV_SCORE_WGMMA_CUH
#define CKV_SCORE_WGMMA_CUH

#include "score_epilogue.cuh"
#include "score_load.cuh"
#include "score_maps.h"

// Two warpgroups that multiply, one that loads, one that schedules and makes log-sum-exps.
constexpr int CKV_WGMMA_THREADS = 4 * 128;

// How tiles of keys come: by the tensor copy engine, by 16-byte copies, or converted.
enum class KeyPath { TENSOR, COPY, CONVERT };

// STEPS: 16-element steps of a row. ROWS: query rows of a unit.
template <int STEPS, int ROWS>
struct WgmmaTiles {
  static constexpr int PANELS = (STEPS + 3) / 4;
  static constexpr int QUERY_BYTES = ROWS * 128 * PANELS;
  static constexpr int KEY_BYTES = CKV_TILE_KEYS * 128 * PANELS;
  static constexpr int QUERIES = STEPS > 8 && ROWS > 64 ? 1 : 2;
  static constexpr int ROOM = 224 * 1024 - QUERIES * QUERY_BYTES;
  static constexpr int STAGES = ROOM / KEY_BYTES < 8 ? ROOM / KEY_BYTES : 8;
  static_assert(STAGES >= 2, "a consumer holds two tiles");
  static constexpr int BYTES = QUERIES * QUERY_BYTES + STAGES * KEY_BYTES;
};

constexpr int CKV_WGMMA_ITEMS = 2;  // one at work, one ahead: more would hold up pass 2

template <int STAGES, int QUERIES>
struct WgmmaShared {
  uint64_t full[STAGES], empty[STAGES], query_empty[QUERIES];
  uint64_t item_full[CKV_WGMMA_ITEMS], norms_full[CKV_WGMMA_ITEMS], item_empty[CKV_WGMMA_ITEMS];
  ScoreItem items[CKV_WGMMA_ITEMS];
  float norms[CKV_WGMMA_ITEMS][128];
};

#ifdef CKV_TRACE
__device__ uint64_t ckv_trace[132 * 2048];
__device__ uint32_t ckv_trace_at[132];
__device__ inline void trace(uint32_t what) {
  uint64_t t;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));
  const uint32_t at = atomicAdd(&ckv_trace_at[blockIdx.x], 1u);
  if (at < 2048) ckv_trace[blockIdx.x * 2048 + at] = (t << 8) | what;
}
#else
__device__ inline void trace(uint32_t) {}
#endif

// One warp finds out what the next tickets stand for, and what pass 2 subtracts from logits.
template <int ROWS, typename Shared>
__device__ void ckv_schedule(const ScoreArgs &a, Shared &shared, int lane) {
  uint32_t next = lane == 0 ? atomicAdd(a.ticket, 1u) : 0;
  for (int taken = 0;;) {
    const int32_t ticket = static_cast<int32_t>(__shfl_sync(0xffffffffu, next, 0));
    if (lane == 0) next = atomicAdd(a.ticket, 1u);  // on its way meanwhile
    const bool end = ticket >= a.tickets;
    const ScoreItem item = end ? ScoreItem{} : ckv_score_item(a, ticket);
    if (!end && item.pass == 0) continue;
    const int slot = taken % CKV_WGMMA_ITEMS;
    ckv_mbarrier_wait(&shared.item_empty[slot], (taken / CKV_WGMMA_ITEMS & 1) ^ 1);
    taken++;
    if (lane == 0) {
      shared.items[slot] = item;
      ckv_mbarrier_arrive(&shared.item_full[slot]);
    }
    if (end) return;
    if (item.pass == 2) {
      for (int row = lane; row < ROWS; row += 32) {
        shared.norms[slot][row] = ckv_row_norm(a, item, row);
      }
      __syncwarp();
    }
    if (lane == 0) ckv_mbarrier_arrive(&shared.norms_full[slot]);
  }
}

// Brings queries and keys of one item after the other.
template <int STEPS, int ROWS, KeyPath PATH, typename T>
struct WgmmaProducer {
  using Tiles = WgmmaTiles<STEPS, ROWS>;
  using Shared = WgmmaShared<Tiles::STAGES, Tiles::QUERIES>;
  // The copy engine needs one warp to tell it; ordinary copies take all four.
  static constexpr int WARPS = PATH == KeyPath::TENSOR ? 1 : 4;
  static constexpr int ARRIVALS = PATH == KeyPath::TENSOR ? 1 : 128;
  const ScoreArgs &a;
  const ScoreMaps &maps;
  Shared &shared;
  uint32_t queries, keys;
  int warp, lane;
  int stage = 0, phase = 0;  // of the next tile
  uint64_t policy;  // keys are used once or twice, and then not for long

  __device__ uint32_t key_tile() const { return keys + stage * Tiles::KEY_BYTES; }
  __device__ void next_tile() {
    if (++stage == Tiles::STAGES) stage = 0, phase ^= 1;
  }

  // By the copy engine. Rows past the end hold anything: they are masked, or not looked at.
  __device__ void load_by_tensor(const ScoreItem &item, int32_t first, int32_t n, bool begins,
                                 int slot) {
    if (lane == 0) {
      const int32_t boxes = min(CKV_TILE_KEYS, (n - first + maps.box_rows - 1) / maps.box_rows *
                                                   maps.box_rows) /
                            maps.box_rows;
      uint64_t *full = &shared.full[stage];
      int32_t found = boxes;
      if (a.keys.block_size) {  // a bad entry is not followed
        for (int32_t i = 0; i < boxes; i++) found -= block_of(item, first + i * maps.box_rows) < 0;
        if (found < boxes) atomicOr(a.fault, CKV_FAULT_BLOCK_TABLE);
      }
      ckv_mbarrier_expect(full, Tiles::PANELS * 128 * found * maps.box_rows +
                                    (begins ? Tiles::QUERY_BYTES : 0));
      if (begins) {
        for (int panel = 0; panel < Tiles::PANELS; panel++) {
          ckv_copy_tensor_2d(queries + slot * Tiles::QUERY_BYTES + panel * ROWS * 128,
                             &maps.queries, full, panel * 64, item.unit(a) * ROWS);
        }
      }
      for (int32_t i = 0; i < boxes; i++) {
        const int32_t t = first + i * maps.box_rows;
        int32_t token = t, outer = item.batch;
        if (a.keys.block_size) {
          outer = block_of(item, t);
          token = t % a.keys.block_size;
          if (outer < 0) continue;
        }
        for (int panel = 0; panel < Tiles::PANELS; panel++) {
          ckv_copy_tensor_4d(
              key_tile() + panel * CKV_TILE_KEYS * 128 + i * maps.box_rows * 128,
              &maps.keys[item.layer], full, panel * 64, token, item.head, outer,
              policy);
        }
      }
    }
    if (lane == 0) ckv_mbarrier_arrive(&shared.full[stage]);
  }

  __device__ int32_t block_of(const ScoreItem &item, int32_t t) const {
    const int32_t index = t / a.keys.block_size;
    const int32_t block =
        index < a.keys.max_blocks
            ? __ldg(a.keys.block_table + static_cast<int64_t>(item.batch) * a.keys.max_blocks +
                    index)
            : -1;
    return static_cast<uint32_t>(block) < static_cast<uint32_t>(a.keys.num_blocks) ? block : -1;
  }

  // By threads. Consumers hear of the tile when it has come, not when it was asked for.
  __device__ void load_by_threads(const ScoreItem &item, int32_t first, int32_t n, bool begins,
                                  int slot) {
    if (begins) {
      ckv_load_queries<STEPS, ROWS, 4, T>(a, item, queries + slot * Tiles::QUERY_BYTES, warp,
                                          lane);
    }
    ckv_load_keys<STEPS, 4, PATH == KeyPath::COPY, T>(a, item, first, n, key_tile(), warp, lane);
    if (PATH == KeyPath::COPY) {
      ckv_arrive_copied(&shared.full[stage]);
    } else {
      ckv_copy_commit();  // the queries
      ckv_copy_wait<0>();
      ckv_fence_async();
      ckv_mbarrier_arrive(&shared.full[stage]);
    }
  }

  __device__ void run() {
    if (warp >= WARPS) return;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    for (int taken = 0;; taken++) {
      const int at = taken % CKV_WGMMA_ITEMS;
      ckv_mbarrier_wait(&shared.item_full[at], taken / CKV_WGMMA_ITEMS & 1);
      const ScoreItem item = shared.items[at];
      if (item.pass == 0) return;
      const int slot = taken % Tiles::QUERIES;
      ckv_mbarrier_wait(&shared.query_empty[slot], (taken / Tiles::QUERIES & 1) ^ 1);
      if (warp == 0 && lane == 0) trace(1);
      const int32_t n = a.keys.len(item.batch);
      const int32_t first = item.item * a.item_tiles * CKV_TILE_KEYS;
      const int32_t last = min(item.pass == 1 ? n : n - a.window,
                               first + a.item_tiles * CKV_TILE_KEYS);
      for (int32_t t = first; t < last; t += CKV_TILE_KEYS) {
        ckv_mbarrier_wait(&shared.empty[stage], phase ^ 1);
        if (PATH == KeyPath::TENSOR) {
          load_by_tensor(item, t, n, t == first, slot);
        } else {
          load_by_threads(item, t, n, t == first, slot);
        }
        next_tile();
      }
      if (warp == 0 && lane == 0) trace(2);
    }
  }
};

template <int STEPS, int ROWS, typename T>
struct WgmmaConsumer {
  using Tiles = WgmmaTiles<STEPS, ROWS>;
  using Shared = WgmmaShared<Tiles::STAGES, Tiles::QUERIES>;
  static constexpr int ACC = ROWS / 2;
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
    const uint32_t half = group * 64 * 128;
    constexpr bool HALVE_ROWS = PASS == 1 && ROWS == 128;
    const uint32_t q = query_tile + (HALVE_ROWS ? half : 0);
    const uint32_t k = key_tile + (HALVE_ROWS ? 0 : half);
    ckv_fence_async();  // the tile was written by ordinary copies
    ckv_pin(acc);
    ckv_wgmma_fence();
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
      const uint32_t at = step % 4 * 32;
      const uint64_t q_tile = ckv_tile_descriptor(q + step / 4 * (ROWS * 128) + at);
      const uint64_t k_tile = ckv_tile_descriptor(k + step / 4 * (CKV_TILE_KEYS * 128) + at);
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

  __device__ float unit_scale(const ScoreItem &item) const {
    return a.unit_scale[item.unit(a)];
  }

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
    each_tile<1>(tiles, query_tile, [&](float(&acc)[ACC], int32_t tile) {
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
      float2 *at = a.maxima +
                   (static_cast<int64_t>(unit) * a.items * ROW_SLOTS + slot) * ROWS + row;
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
    each_tile<2>(tiles, query_tile, [&](float(&acc)[ACC], int32_t tile) {
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
      if (warp == 0 && lane == 0) trace(10 + group * 10 + item.pass);
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
      __syncwarp();
      if (lane == 0) {
        ckv_mbarrier_arrive(&shared.query_empty[slot]);
        ckv_mbarrier_arrive(&shared.item_empty[at]);
      }
      if (warp == 0 && lane == 0) trace(13 + group * 10);
    }
  }
};

template <int STEPS, int ROWS, KeyPath PATH, typename T>
__global__ void __launch_bounds__(CKV_WGMMA_THREADS, 1)
    ckv_score_wgmma_kernel(const __grid_constant__ ScoreArgs a,
                           const __grid_constant__ ScoreMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Tiles = WgmmaTiles<STEPS, ROWS>;
  using Producer = WgmmaProducer<STEPS, ROWS, PATH, T>;
  // All of it dynamic: swizzled tiles begin at multiples of 1024 bytes, as shared memory does.
  extern __shared__ __align__(1024) uint8_t memory[];
  using Shared = WgmmaShared<Tiles::STAGES, Tiles::QUERIES>;
  Shared &shared = *reinterpret_cast<Shared *>(memory + Tiles::BYTES);
  const uint32_t queries = ckv_smem(memory);
  const uint32_t keys = queries + Tiles::QUERIES * Tiles::QUERY_BYTES;
  if (threadIdx.x == 0) {
    for (int i = 0; i < Tiles::STAGES; i++) {
      ckv_mbarrier_init(&shared.full[i], Producer::ARRIVALS);
      ckv_mbarrier_init(&shared.empty[i], 8);  // the consumers' warps
    }
    for (int i = 0; i < Tiles::QUERIES; i++) ckv_mbarrier_init(&shared.query_empty[i], 8);
    for (int i = 0; i < CKV_WGMMA_ITEMS; i++) {
      ckv_mbarrier_init(&shared.item_full[i], 1);
      ckv_mbarrier_init(&shared.norms_full[i], 1);
      ckv_mbarrier_init(&shared.item_empty[i], 8);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  ckv_chain();
  __syncthreads();
  const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  // Registers go from those who need few to those who need many; 128 each at first.
  if (group < 2) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 200;");
    WgmmaConsumer<STEPS, ROWS, T> consumer{a, shared, queries, keys, group, warp, lane};
    consumer.run();
  } else if (group == 2) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
    Producer producer{a, maps, shared, queries, keys, warp, lane};
    producer.run();
  } else {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
    if (warp == 0) {
      ckv_schedule<ROWS>(a, shared, lane);
    } else if (a.two_passes) {
      ckv_combine_units<ROWS>(a, 8, ROWS == 64 ? 2 : 1, lane);
    }
  }
#endif
}

#endif
