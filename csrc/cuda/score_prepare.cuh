// Before the score kernels: counters to zero, queries to 16-bit rows. After them: the attention of
// rows to token scores.
#ifndef CKV_SCORE_PREPARE_CUH
#define CKV_SCORE_PREPARE_CUH

#include <type_traits>

#include "score_load.cuh"

constexpr int CKV_PREPARE_THREADS = 256;
constexpr int CKV_MAX_SPREAD = 64;

struct TokenScores {
  float *data[CKV_SCORE_LAYERS];  // [batch, heads, kv_len]; of tokens without a score: 0
};

struct QuerySource {
  int32_t dtype;
  QueryRows rows;
  const uint8_t *data[CKV_SCORE_LAYERS];
};

// A block per eight rows of a unit, a warp per row. f16 rows are scaled by a power of two, one for
// the unit, so that none overflows: the largest element is below 2^15, and what is 2^28 times
// smaller still has all its bits.
template <typename T>
__global__ void ckv_score_prepare_kernel(const __grid_constant__ ScoreArgs a,
                                         const __grid_constant__ QuerySource source) {
  // Once all its blocks have begun, what came before them is done: the next kernel may read keys at once.
  ckv_wait_for_previous();
  ckv_let_next_start();
  constexpr int WARPS = CKV_PREPARE_THREADS / 32;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int32_t blocks = a.row_block / WARPS, unit = blockIdx.x / blocks;
  if (blockIdx.x % blocks == 0) {
    for (int i = threadIdx.x; i < a.row_block; i += blockDim.x) {
      reinterpret_cast<uint32_t *>(a.log_sum_exp)[unit * a.row_block + i] = CKV_NOT_YET;
    }
    if (threadIdx.x == 0) {
      a.pass1_done[unit] = 0;
      if (unit == 0) *a.ticket = *a.combine_ticket = 0;
    }
  }

  const ScoreItem item = ckv_head_at(a, unit / a.row_blocks);
  const auto row_of = [&](int32_t row) -> const uint8_t * {
    const int32_t index = unit % a.row_blocks * a.row_block + row;
    if (index >= a.rows) return nullptr;
    return source.rows.at(source.data[item.layer], item.batch, item.head, index);
  };
  const int32_t dim = a.keys.head_dim;
  int shift = 0;
  if (std::is_same<T, __half>::value) {
    float most = 0;
    for (int32_t r = warp; r < a.row_block; r += WARPS) {
      const uint8_t *row = row_of(r);
      for (int32_t i = lane; row && i < dim; i += 32) {
        most = fmaxf(most, fabsf(ckv_element(source.dtype, row, i)));
      }
    }
    __shared__ float most_of[WARPS];
    for (int other = 16; other; other /= 2) {
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, other));
    }
    if (lane == 0) most_of[warp] = most;
    __syncthreads();
    for (int i = 0; i < WARPS; i++) most = fmaxf(most, most_of[i]);
    if (most > 0 && most < INFINITY) shift = 14 - ilogbf(most);
  }
  const int32_t own = blockIdx.x % blocks * WARPS + warp;
  const uint8_t *row = row_of(own);
  T *packed = reinterpret_cast<T *>(const_cast<uint8_t *>(a.queries)) +
              (static_cast<int64_t>(unit) * a.row_block + own) * a.packed_dim;
  const float scale = exp2f(static_cast<float>(shift / 2));  // in two steps: it may not fit in one
  const float rest = exp2f(static_cast<float>(shift - shift / 2));
#pragma unroll 4
  for (int32_t i = lane; i < a.packed_dim; i += 32) {
    const float value = row && i < dim ? ckv_element(source.dtype, row, i) : 0;
    packed[i] = ckv_from_float<T>(value * scale * rest);
  }
  if (threadIdx.x == 0 && blockIdx.x % blocks == 0) {
    const_cast<float *>(a.unit_scale)[unit] = ldexpf(1, -shift);
  }
}

// Attention of all heads together that token t has, 0 where it has no score.
__device__ inline float ckv_sum_parts(const ScoreArgs &a, int64_t sequence, int32_t t,
                                      int32_t scored) {
  const int32_t parts = a.keys.num_kv_heads * a.row_blocks;
  const float *partial = a.partial + sequence * parts * a.partial_stride + t;
  float sum = 0;
  if (t >= 0 && t < scored) {
#pragma unroll 8
    for (int32_t p = 0; p < parts; p++) sum += partial[p * a.partial_stride];
  }
  return sum;
}

// chunkkv.
__global__ void ckv_sum_scores_kernel(const __grid_constant__ ScoreArgs a,
                                      const __grid_constant__ TokenScores out, int32_t of_row) {
  ckv_chain();
  const int64_t sequence = blockIdx.x / of_row;
  const int32_t b = static_cast<int32_t>(sequence % a.keys.batch);
  const int32_t t = blockIdx.x % of_row * blockDim.x + threadIdx.x;
  if (t >= a.keys.kv_len) return;
  const float sum = ckv_sum_parts(a, sequence, t, a.keys.len(b) - a.window);
  if (!(sum < INFINITY)) atomicOr(a.fault, CKV_FAULT_NUMERIC);
  out.data[sequence / a.keys.batch][static_cast<int64_t>(b) * a.keys.kv_len + t] = sum;
}

// chunkkv in place of the kernel above: a token's score is shared out evenly over itself and the
// spread - 1 tokens after it. Sums of a thread block's tokens, and of those before them that share
// with it, meet in shared memory: nothing is read that another block writes.
__global__ void ckv_spread_scores_kernel(const __grid_constant__ ScoreArgs a,
                                         const __grid_constant__ TokenScores out, int32_t spread,
                                         int32_t of_row) {
  __shared__ float sums[CKV_PREPARE_THREADS + CKV_MAX_SPREAD - 1];
  ckv_chain();
  const int64_t sequence = blockIdx.x / of_row;
  const int32_t b = static_cast<int32_t>(sequence % a.keys.batch);
  const int32_t scored = a.keys.len(b) - a.window;
  const int32_t first = blockIdx.x % of_row * CKV_PREPARE_THREADS;
  for (int32_t i = threadIdx.x; i < CKV_PREPARE_THREADS + spread - 1; i += CKV_PREPARE_THREADS) {
    sums[i] = ckv_sum_parts(a, sequence, first + i - (spread - 1), scored);
  }
  __syncthreads();
  const int32_t t = first + threadIdx.x;
  if (t >= a.keys.kv_len) return;
  double sum = 0;  // newest first, as on the CPU; before the first token: 0
  for (int32_t i = spread - 1; i >= 0 && t < scored; i--) sum += sums[threadIdx.x + i];
  const float score = static_cast<float>(sum / spread);
  if (!(score < INFINITY)) atomicOr(a.fault, CKV_FAULT_NUMERIC);
  out.data[sequence / a.keys.batch][static_cast<int64_t>(b) * a.keys.kv_len + t] = score;
}

// snapkv: attention of a kv head's rows, averaged over rows and over pool_size neighbours; what is
// beyond the ends counts as 0 (arXiv 2404.14469 and kvpress).
__global__ void ckv_pool_scores_kernel(const __grid_constant__ ScoreArgs a,
                                       const __grid_constant__ TokenScores out, int32_t pool_size,
                                       int32_t of_row) {
  ckv_chain();
  const int64_t row = blockIdx.x / of_row;
  const int32_t heads = a.keys.num_kv_heads;
  const int64_t in_layer = row % (a.keys.batch * heads);
  const int32_t len = a.keys.len(static_cast<int32_t>(in_layer / heads)) - a.window;
  const int32_t t = blockIdx.x % of_row * blockDim.x + threadIdx.x;
  if (t >= a.keys.kv_len) return;
  float score = 0;
  if (t < len) {
    const float *partial = a.partial + row * a.row_blocks * a.partial_stride;
    const int32_t begin = max(0, t - pool_size / 2), end = min(len, t + pool_size / 2 + 1);
    double sum = 0;
    for (int32_t i = begin; i < end; i++) {
      float mass = 0;
      for (int32_t p = 0; p < a.row_blocks; p++) mass += partial[p * a.partial_stride + i];
      sum += mass;
    }
    score = static_cast<float>(sum / a.rows / pool_size);
  }
  if (!(score < INFINITY)) atomicOr(a.fault, CKV_FAULT_NUMERIC);
  out.data[row / (a.keys.batch * heads)][in_layer * a.keys.kv_len + t] = score;
}

#endif
