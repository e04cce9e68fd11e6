// The pass over the keys. Two pairs of warpgroups take tiles in turn, the two of a pair half of the rows
// each; while one pair works on exponentials, the tensor cores have the other's product. A thread of each pair
// asks the tensor copy engine for its pair's next tile when one has been multiplied.
#ifndef CKV_CHUNK_WGMMA_CUH
#define CKV_CHUNK_WGMMA_CUH

#include "chunk_args.cuh"
#include "score_epilogue.cuh"
#include "score_maps.h"
#include "wgmma.cuh"

// STEPS: 16-element steps of a row. POSITIONS: tokens of a chunk in a tile.
template <int STEPS, int POSITIONS>
struct ChunkTiles {
  static constexpr int KEYS = CKV_TILE_CHUNKS * POSITIONS;
  static constexpr int PANELS = (STEPS + 3) / 4;
  static constexpr int QUERY_BYTES = CKV_CHUNK_ROWS * 128 * PANELS;
  static constexpr int KEY_BYTES = KEYS * 128 * PANELS;
  static constexpr int STAGES = 4;
  static constexpr int BYTES = 2 * QUERY_BYTES + STAGES * KEY_BYTES;
};

template <int STAGES>
struct ChunkShared {
  uint64_t full[STAGES], empty[STAGES];
  uint64_t query_full[2], query_empty[2];
  uint64_t turn[CKV_CHUNK_PAIRS];  // of a pair to have the tensor cores
};

// A thread's row: the base of its exponentials and their sum so far.
struct ChunkRow {
  float base = CKV_NONE, sum = 0;

  // To a base that is not below `most`, this thread's largest logit, or any of the row's.
  __device__ void raise(float most) {
#pragma unroll
    for (int lane = 1; lane <= 2; lane *= 2) {
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, lane));
    }
    most = fmaxf(most, base);
    if (base != CKV_NONE) sum *= ckv_exp2(base - most);
    base = most;
  }
  // Added to logits. Without a base sums are infinite, so that it is raised; where it cannot be, of
  // nothing but -inf, they are 0.
  __device__ float norm(bool raised) const {
    return base == CKV_NONE ? (raised ? 0 : INFINITY) : -base;
  }
};

template <int STEPS, int POSITIONS, typename T>
struct ChunkPass {
  using Tiles = ChunkTiles<STEPS, POSITIONS>;
  using Shared = ChunkShared<Tiles::STAGES>;
  static constexpr int ACC = Tiles::KEYS / 2;
  const ChunkArgs &a;
  const ChunkMaps &maps;
  Shared &shared;
  uint32_t queries, keys;
  int pair, half, warp, lane;
  int32_t begin, end;
  uint64_t policy;  // keys are used once, queries soon or not again
  int turn_phase = 0;

  __device__ bool loads() const { return half == 0 && warp == 0 && lane == 0; }
  __device__ int row() const { return half * 64 + warp * 16 + lane / 4; }

  // The block's tile number `index`.
  __device__ void load_keys(int32_t index) {
    const ChunkSegment at(a, begin + index, end);
    const ScoreItem item = ckv_head_at(a.score, at.unit / a.score.row_blocks);
    const int stage = index % Tiles::STAGES;
    uint64_t *full = &shared.full[stage];
    const uint32_t to = keys + stage * Tiles::KEY_BYTES;
    const bool window = at.first == a.tiles;
    ckv_mbarrier_expect(full, window ? CKV_MAX_WINDOW * 128 * Tiles::PANELS : Tiles::KEY_BYTES);
    for (int panel = 0; panel < Tiles::PANELS; panel++) {
      const uint32_t to_panel = to + panel * Tiles::KEYS * 128;
      if (window) {
        ckv_copy_tensor_4d(to_panel, &maps.rows[item.layer], full, panel * 64, a.scored, item.head,
                           item.batch, policy);
      } else {
        ckv_copy_tensor_5d(to_panel, &maps.chunks[item.layer], full, panel * 64,
                           at.first / a.parts * CKV_TILE_CHUNKS, at.first % a.parts * POSITIONS,
                           item.head, item.batch, policy);
      }
    }
    ckv_mbarrier_arrive(full);
  }

  __device__ void load_queries(int32_t unit, int slot) {
    const ScoreItem item = ckv_head_at(a.score, unit / a.score.row_blocks);
    const int32_t heads = CKV_CHUNK_ROWS / a.score.window;  // of a unit that is not packed
    const bool packed = a.score.queries;
    const CUtensorMap *map = &maps.queries[packed ? 0 : item.layer];
    const int32_t first =
        packed ? unit : item.head * a.score.group + unit % a.score.row_blocks * heads;
    ckv_mbarrier_expect(&shared.query_full[slot], Tiles::QUERY_BYTES);
    for (int panel = 0; panel < Tiles::PANELS; panel++) {
      ckv_copy_tensor_4d(queries + slot * Tiles::QUERY_BYTES + panel * CKV_CHUNK_ROWS * 128, map,
                         &shared.query_full[slot], panel * 64, 0, first, packed ? 0 : item.batch,
                         policy);
    }
    ckv_mbarrier_arrive(&shared.query_full[slot]);
  }

  // This warpgroup's rows by the tile's keys, when the tensor cores are its pair's.
  __device__ void multiply(float (&acc)[ACC], int32_t index, int slot) {
    const int stage = index % Tiles::STAGES;
    ckv_mbarrier_wait(&shared.full[stage], index / Tiles::STAGES & 1);
    ckv_mbarrier_wait(&shared.turn[pair], turn_phase ^ (pair == 0));  // the first pair begins
    turn_phase ^= 1;
    const uint64_t q = ckv_tile_descriptor(queries + slot * Tiles::QUERY_BYTES + half * 64 * 128);
    const uint64_t k = ckv_tile_descriptor(keys + stage * Tiles::KEY_BYTES);
    ckv_pin(acc);
    ckv_wgmma_fence();
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
      const uint32_t at = step % 4 * 32;
      ckv_wgmma(acc, ckv_further(q, step / 4 * CKV_CHUNK_ROWS * 128 + at),
                ckv_further(k, step / 4 * Tiles::KEYS * 128 + at), step > 0, T{});
    }
    ckv_wgmma_commit();
    ckv_wgmma_wait<0>();
    ckv_pin(acc);
    if (lane == 0) {
      ckv_mbarrier_arrive(&shared.turn[pair ^ 1]);
      ckv_mbarrier_arrive(&shared.empty[stage]);
    }
    if (loads() && begin + index + Tiles::STAGES < end) {
      ckv_mbarrier_wait(&shared.empty[stage], index / Tiles::STAGES & 1);
      load_keys(index + Tiles::STAGES);
    }
    __syncwarp();
  }

  // Takes out what a row does not see, or what has no score.
  __device__ void mask(float (&acc)[ACC], int32_t tile, int32_t first_row) const {
    const int32_t window = a.score.window, chunk_size = a.chunk_size;
    const int32_t column = lane % 4 * 2;
    if (tile == a.tiles) {  // in the order of tokens
      const int32_t sees0 = (first_row + row()) % window, sees1 = (first_row + row() + 8) % window;
#pragma unroll
      for (int i = 0; i < ACC; i++) {
        if (column + i / 4 * 8 + i % 2 > (i % 4 < 2 ? sees0 : sees1)) acc[i] = CKV_NONE;
      }
      return;
    }
    const int32_t chunk = tile / a.parts * CKV_TILE_CHUNKS + column;
    if ((tile / a.parts + 1) * CKV_TILE_CHUNKS * chunk_size <= a.scored) return;
    const int32_t token = chunk * chunk_size + tile % a.parts * POSITIONS;
#pragma unroll
    for (int i = 0; i < ACC; i++) {
      const int32_t further = (i / 4 % 2 * 8 + i % 2) * chunk_size + i / 8;
      if (token + further >= a.scored) acc[i] = CKV_NONE;
    }
  }

  // sum[e], sum[e + 4]: of the first row (e < 2) and the second, chunks 2 (lane % 4) + e % 2 and 8 more.
  // The base is the largest logit seen when it was last raised: exponentials of what is larger are
  // fine as long as they stay far from infinity.
  __device__ void sum_chunks(const float (&acc)[ACC], float scale, ChunkRow &row0, ChunkRow &row1,
                             float (&sum)[8]) {
    for (bool raised = false;; raised = true) {
      const float norm0 = row0.norm(raised), norm1 = row1.norm(raised);
#pragma unroll
      for (int i = 0; i < 8; i++) sum[i] = 0;
#pragma unroll
      for (int i = 0; i < ACC; i++) {
        sum[i % 8] += ckv_exp2(fmaf(acc[i], scale, i % 4 < 2 ? norm0 : norm1));
      }
      const float all0 = (sum[0] + sum[1]) + (sum[4] + sum[5]);
      const float all1 = (sum[2] + sum[3]) + (sum[6] + sum[7]);
      const bool large = !(all0 < 0x1p60f) || !(all1 < 0x1p60f);  // or NaN, or no base yet
      if (raised || !__any_sync(0xffffffffu, large)) {
        row0.sum += all0;
        row1.sum += all1;
        return;
      }
      float most0 = CKV_NONE, most1 = CKV_NONE;
#pragma unroll
      for (int i = 0; i < ACC; i += 4) {
        most0 = fmaxf(most0, fmaxf(acc[i], acc[i + 1]));
        most1 = fmaxf(most1, fmaxf(acc[i + 2], acc[i + 3]));
      }
      row0.raise(most0 * scale);
      row1.raise(most1 * scale);
    }
  }

  __device__ void store(int32_t unit, int32_t tile, int32_t first_row, const ChunkRow &row0,
                        const ChunkRow &row1, const float (&sum)[8]) {
    const int64_t at = (static_cast<int64_t>(unit) * a.tiles + tile) * CKV_CHUNK_ROWS + row();
    const int32_t rows = a.score.rows - first_row - row();  // from this thread's on
    float4 *sums = a.sums + at * 4 + lane % 4;
    if (rows > 0) __stcg(sums, make_float4(sum[0], sum[1], sum[4], sum[5]));
    if (rows > 8) __stcg(sums + 8 * 4, make_float4(sum[2], sum[3], sum[6], sum[7]));
    if (rows > 0 && lane % 4 == 0) __stcg(a.bases + at, row0.base);
    if (rows > 8 && lane % 4 == 0) __stcg(a.bases + at + 8, row1.base);
  }

  // Maximum and sum of this warp's rows over the segment's tiles of its pair.
  __device__ void leave_rows(int32_t unit, ChunkRow &row0, ChunkRow &row1) {
#pragma unroll
    for (int other = 1; other <= 2; other *= 2) {
      row0.sum += __shfl_xor_sync(0xffffffffu, row0.sum, other);
      row1.sum += __shfl_xor_sync(0xffffffffu, row1.sum, other);
    }
    const int32_t block = static_cast<int32_t>(blockIdx.x) - a.first_block(unit);
    const int64_t slot = static_cast<int64_t>(unit) * a.slots + block * CKV_CHUNK_PAIRS + pair;
    if (lane % 4 == 0) {
      float2 *at = a.score.maxima + slot * CKV_CHUNK_ROWS + row();
      __stcg(at, make_float2(row0.base, row0.sum));
      __stcg(at + 8, make_float2(row1.base, row1.sum));
    }
    __syncwarp();
    ckv_wait_for_previous();  // counters are at zero
    if (lane == 0) ckv_add_release(&a.score.pass1_done[unit], 1);
  }

  __device__ void begin_keys() {
    if (!loads()) return;
    for (int32_t i = pair; i < Tiles::STAGES && begin + i < end; i += CKV_CHUNK_PAIRS) load_keys(i);
  }

  __device__ void run() {
    int32_t index = 0, segments = 0;
    for (int32_t at = begin; at < end; segments++) {
      const ChunkSegment segment(a, at, end);
      const int slot = segments % 2;
      at += segment.tiles();
      if (loads() && pair == 0) {
        if (segments == 0) load_queries(segment.unit, 0);
        if (at < end) {
          ckv_mbarrier_wait(&shared.query_empty[slot ^ 1], ((segments + 1) / 2 & 1) ^ 1);
          load_queries(segment.unit + 1, slot ^ 1);
        }
      }
      __syncwarp();
      ckv_mbarrier_wait(&shared.query_full[slot], segments / 2 & 1);
      const float by = a.score.unit_scale ? a.score.unit_scale[segment.unit] : 1;
      const int32_t first_row = segment.unit % a.score.row_blocks * CKV_CHUNK_ROWS;
      ChunkRow row0, row1;
      for (int32_t tile = segment.first; tile < segment.last; tile++, index++) {
        if (index % CKV_CHUNK_PAIRS != pair) continue;
        float acc[ACC], sum[8];
        multiply(acc, index, slot);
        const float scale = ckv_cap_logits(a.score, by, acc);
        mask(acc, tile, first_row);
        sum_chunks(acc, scale, row0, row1, sum);
        if (tile < a.tiles) store(segment.unit, tile, first_row, row0, row1, sum);
      }
      leave_rows(segment.unit, row0, row1);
      if (lane == 0) ckv_mbarrier_arrive(&shared.query_empty[slot]);
    }
  }

  // The log-sum-exps of units that end in this block's run: one warpgroup, a thread a row. It waits for
  // blocks before this one alone.
  __device__ void combine() {
    for (int32_t at = begin; at < end;) {
      const ChunkSegment segment(a, at, end);
      at += segment.tiles();
      if (segment.last != a.of_unit()) continue;
      const int32_t unit = segment.unit, row = warp * 32 + lane;
      const int32_t met = static_cast<int32_t>(blockIdx.x) - a.first_block(unit) + 1;
      const uint32_t arrivals = static_cast<uint32_t>(met * CKV_CHUNK_WARPS);
      while (ckv_load_acquire(&a.score.pass1_done[unit]) != arrivals) __nanosleep(40);
      __syncwarp();
      const float lse = ckv_combine_slots(
          a.score.maxima + static_cast<int64_t>(unit) * a.slots * CKV_CHUNK_ROWS + row,
          met * CKV_CHUNK_PAIRS, CKV_CHUNK_ROWS);
      const bool counts = unit % a.score.row_blocks * CKV_CHUNK_ROWS + row < a.score.rows;
      if (counts && !(fabsf(lse) < INFINITY)) atomicOr(a.score.fault, CKV_FAULT_NUMERIC);
      a.score.log_sum_exp[static_cast<int64_t>(unit) * CKV_CHUNK_ROWS + row] = lse;
    }
  }
};

template <int STEPS, int POSITIONS, typename T>
__global__ void __launch_bounds__(CKV_CHUNK_THREADS, 1)
    ckv_chunk_wgmma_kernel(const __grid_constant__ ChunkArgs a,
                           const __grid_constant__ ChunkMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Pass = ChunkPass<STEPS, POSITIONS, T>;
  using Tiles = typename Pass::Tiles;
  // All of it dynamic: swizzled tiles begin at multiples of 1024 bytes, as shared memory does.
  extern __shared__ __align__(1024) uint8_t memory[];
  auto &shared = *reinterpret_cast<typename Pass::Shared *>(memory + Tiles::BYTES);
  const uint32_t queries = ckv_smem(memory), keys = queries + 2 * Tiles::QUERY_BYTES;
  if (threadIdx.x == 0) {
    constexpr int OF_PAIR = CKV_CHUNK_WARPS / CKV_CHUNK_PAIRS;
    for (int i = 0; i < Tiles::STAGES; i++) {
      ckv_mbarrier_init(&shared.full[i], 1);
      ckv_mbarrier_init(&shared.empty[i], OF_PAIR);
    }
    for (int i = 0; i < 2; i++) {
      ckv_mbarrier_init(&shared.query_full[i], 1);
      ckv_mbarrier_init(&shared.query_empty[i], CKV_CHUNK_WARPS);
    }
    for (int i = 0; i < CKV_CHUNK_PAIRS; i++) ckv_mbarrier_init(&shared.turn[i], OF_PAIR);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  const int32_t block = static_cast<int32_t>(blockIdx.x);
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  Pass pass{a,
            maps,
            shared,
            queries,
            keys,
            group / 2,
            group % 2,
            warp,
            lane,
            a.begin_of(block),
            a.begin_of(block + 1),
            policy};
  // Keys, and queries that are not packed, are not the kernel's before this one, which does not let this one
  // start before they are there: see score_prepare.cuh and chunk_score.cu.
  pass.begin_keys();
  ckv_let_next_start();
  if (a.score.queries) ckv_wait_for_previous();
  pass.run();
  if (group == 0) pass.combine();
#endif
}

#endif
