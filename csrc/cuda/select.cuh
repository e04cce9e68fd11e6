// Token scores to kept indices: one thread block per index set.
//
// What competes is chunks (chunkkv) or tokens (snapkv). The k-th best is found by three rounds of
// counting digits of the scores' bits, 11 + 11 + 10; ties go to the lower index.
#ifndef CKV_SELECT_CUH
#define CKV_SELECT_CUH

#include "device_view.cuh"

constexpr int CKV_SELECT_LAYERS = 32;
constexpr int CKV_SELECT_THREADS = 1024;

// Scores of single tokens are made when they are asked for, where chunk scores came without them: from
// the log-sum-exps of all rows, of all layers.
struct TokenSource {
  KvShape keys;
  int32_t rows, row_block, row_blocks;  // query rows, see score_args.cuh
  int32_t packed_dim;
  bool bf16;
  float logit_scale, cap, cap_scale;
  const uint8_t *queries;    // [unit][row_block][packed_dim]; NULL: query_rows of query_data
  const float *unit_scale;   // [unit]; NULL with queries
  const float *log_sum_exp;  // [unit][row_block]
  int32_t first_layer;       // of the launch: queries and sums are of all
  QueryRows query_rows;
  const uint8_t *query_data[CKV_SELECT_LAYERS];
  const void *data[CKV_SELECT_LAYERS];
};

struct SelectArgs {
  ckv_params params;
  const int32_t *kv_lens;
  int32_t kv_len, batch, num_heads, capacity;
  int32_t max_chunks;   // entries of a row of chunk_scores
  float *chunk_scores;  // [layer, batch, max_chunks]; NULL: tokens compete
  uint32_t *fault;
  bool has_chunks;                         // scores are of chunks: [batch, max_chunks]
  const float *scores[CKV_SELECT_LAYERS];  // [batch, heads, kv_len]
  int32_t *indices[CKV_SELECT_LAYERS];
  int32_t *lens[CKV_SELECT_LAYERS];
};

// Unsigned order of these bits is descending order of the scores, as ckv_rank of the CPU.
__device__ inline uint32_t ckv_score_bits(float score) {
  const uint32_t bits = __float_as_uint(score + 0.0f);
  return bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
}

// What a thread block sums, scans and finds.
struct BlockShared {
  int32_t warp_sums[32];
  uint64_t warp_best[32];
  int32_t total;
  uint64_t best;
  int32_t histogram[2048];
  int32_t digit, before;
  int32_t run_chunk[2], run_begin[2], run_length[2], num_runs;
};

// Exclusive sum over the block's threads; *total: of all.
__device__ inline int32_t ckv_block_scan(BlockShared &shared, int32_t value, int32_t *total) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int32_t sum = value;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int32_t other = __shfl_up_sync(0xffffffffu, sum, step);
    if (lane >= step) sum += other;
  }
  __syncthreads();
  if (lane == 31) shared.warp_sums[warp] = sum;
  __syncthreads();
  if (warp == 0) {
    int32_t w = shared.warp_sums[lane];
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int32_t other = __shfl_up_sync(0xffffffffu, w, step);
      if (lane >= step) w += other;
    }
    shared.warp_sums[lane] = w;
  }
  __syncthreads();
  *total = shared.warp_sums[31];
  return (warp ? shared.warp_sums[warp - 1] : 0) + sum - value;
}

__device__ inline uint64_t ckv_block_min(BlockShared &shared, uint64_t value) {
#pragma unroll
  for (int other = 16; other; other /= 2) {
    const uint64_t v = __shfl_xor_sync(0xffffffffu, static_cast<unsigned long long>(value), other);
    value = v < value ? v : value;
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared.warp_best[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x < 32) {
    value = shared.warp_best[threadIdx.x];
#pragma unroll
    for (int other = 16; other; other /= 2) {
      const uint64_t v =
          __shfl_xor_sync(0xffffffffu, static_cast<unsigned long long>(value), other);
      value = v < value ? v : value;
    }
    if (threadIdx.x == 0) shared.best = value;
  }
  __syncthreads();
  return shared.best;
}

struct Threshold {
  uint32_t bits;  // scores with smaller bits are in
  int32_t equal;  // and so many of those with equal bits, lowest index first
};

// The k best of n, 1 <= k <= n.
__device__ inline Threshold ckv_block_topk(BlockShared &shared, const float *scores, int32_t n,
                                           int32_t k) {
  uint32_t prefix = 0, mask = 0;
  const int shifts[3] = {21, 10, 0}, widths[3] = {11, 11, 10};
#pragma unroll
  for (int round = 0; round < 3; round++) {
    const int shift = shifts[round], bins = 1 << widths[round];
    for (int i = threadIdx.x; i < bins; i += CKV_SELECT_THREADS) shared.histogram[i] = 0;
    __syncthreads();
    for (int32_t i = threadIdx.x; i < n; i += CKV_SELECT_THREADS) {
      const uint32_t bits = ckv_score_bits(scores[i]);
      if ((bits & mask) == prefix) {
        atomicAdd(&shared.histogram[bits >> shift & (bins - 1)], 1);
      }
    }
    __syncthreads();
    const int first = 2 * threadIdx.x;
    const int32_t low = first < bins ? shared.histogram[first] : 0;
    const int32_t high = first + 1 < bins ? shared.histogram[first + 1] : 0;
    int32_t total;
    const int32_t before = ckv_block_scan(shared, low + high, &total);
    if (before < k && k <= before + low) {
      shared.digit = first;
      shared.before = before;
    } else if (before + low < k && k <= before + low + high) {
      shared.digit = first + 1;
      shared.before = before + low;
    }
    __syncthreads();
    prefix |= static_cast<uint32_t>(shared.digit) << shift;
    mask |= static_cast<uint32_t>(bins - 1) << shift;
    k -= shared.before;
    __syncthreads();
  }
  return {prefix, k};
}

#endif
