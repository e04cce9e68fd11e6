// The rules of src/select/ for one thread block: budgets, chunk scores, the best and what is left.
#ifndef CKV_SELECT_RULES_CUH
#define CKV_SELECT_RULES_CUH

#include "select.cuh"

// Shared memory of the select kernel: scores on their way to chunk scores, and those if they fit.
// Together with the rest below 99 KiB, which every card has.
constexpr int32_t TILE_TOKENS = 8192, SHARED_CHUNKS = 14336;
constexpr int32_t TILE_BYTES = (TILE_TOKENS + SHARED_CHUNKS) * 4;

struct Budget {  // as src/select/budget.h
  int32_t len, rest, newest;
};

static __device__ Budget split_budget(const ckv_params &p, int32_t n) {
  const int32_t window = min(p.window, n);
  Budget b{n - window, p.budget - window, n - window};
  if (b.rest < 0) {
    b.rest = 0;
    if (p.fill == CKV_FILL_EXACT) b.newest = n - p.budget;
  }
  return b;
}

static __device__ float chunk_score(const ckv_params &p, const float *scores, int32_t begin,
                                    int32_t end) {
  double sum = 0;
  float most = scores[begin];
  for (int32_t t = begin; t < end; t++) {
    sum += scores[t];
    most = fmaxf(most, scores[t]);
  }
  if (p.chunk_reduce == CKV_REDUCE_MEAN) sum /= end - begin;
  return p.chunk_reduce == CKV_REDUCE_MAX ? most : static_cast<float>(sum);
}

// Chunk scores of [0, len), through shared memory so that scores are read in order. Returns
// whether this thread met NaN.
static __device__ bool sum_chunks(const ckv_params &p, const float *scores, int32_t len, float *out,
                                  float *tile) {
  bool nan = false;
  const int32_t c = p.chunk_size;
  if (c > TILE_TOKENS) {
    for (int64_t j = threadIdx.x; j * c < len; j += CKV_SELECT_THREADS) {
      const int32_t begin = static_cast<int32_t>(j) * c, end = len - begin > c ? begin + c : len;
      out[j] = chunk_score(p, scores, begin, end);
      for (int32_t t = begin; t < end; t++) nan |= scores[t] != scores[t];
    }
    return nan;
  }
  const int32_t step = TILE_TOKENS / c * c;
  for (int32_t first = 0; first < len; first += step) {
    const int32_t count = min(step, len - first);
    __syncthreads();
#pragma unroll 8
    for (int32_t i = threadIdx.x; i < count; i += CKV_SELECT_THREADS) {
      const float score = scores[first + i];
      tile[i] = score;
      nan |= score != score;
    }
    __syncthreads();
    for (int32_t j = threadIdx.x; j * c < count; j += CKV_SELECT_THREADS) {
      const int32_t begin = j * c, end = count - begin > c ? begin + c : count;
      out[first / c + j] = chunk_score(p, tile, begin, end);
    }
  }
  return nan;
}

// Where the `length` neighbours of `n` scores with the highest sum begin; the first on ties.
static __device__ int32_t best_run(const float *scores, int32_t n, int32_t length) {
  double sum = 0;
  for (int32_t t = 0; t < length; t++) sum += scores[t];
  double best = sum;
  int32_t best_begin = 0;
  for (int32_t t = length; t < n; t++) {
    sum += static_cast<double>(scores[t]) - scores[t - length];
    if (sum > best) {
      best = sum;
      best_begin = t - length + 1;
    }
  }
  return best_begin;
}

// What is left of the budget goes to the next best chunks, each in full or, the last, its best run.
// token_scores(begin, end): of those tokens, for all threads.
template <typename TokenScores>
static __device__ void find_runs(BlockShared &shared, const SelectArgs &a, const float *chunks,
                                 int32_t num_chunks, const Budget &budget, uint64_t rank,
                                 int32_t rest, TokenScores token_scores) {
  const int32_t c = a.params.chunk_size;
  while (rest > 0 && shared.num_runs < 2) {
    uint64_t next = UINT64_MAX;
    for (int32_t j = threadIdx.x; j < num_chunks; j += CKV_SELECT_THREADS) {
      const uint64_t r = static_cast<uint64_t>(ckv_score_bits(chunks[j])) << 32 | j;
      if (r > rank && r < next) next = r;
    }
    rank = ckv_block_min(shared, next);
    if (rank == UINT64_MAX) return;
    const int32_t chunk = static_cast<int32_t>(rank & 0xffffffffu), begin = chunk * c;
    const int32_t end = budget.len - begin > c ? begin + c : budget.len;
    const int32_t length = min(rest, end - begin);
    const float *scores = length < end - begin ? token_scores(begin, end) : nullptr;
    if (threadIdx.x == 0) {
      shared.run_chunk[shared.num_runs] = chunk;
      shared.run_begin[shared.num_runs] =
          begin + (scores ? best_run(scores, end - begin, length) : 0);
      shared.run_length[shared.num_runs++] = length;
    }
    rest -= length;
    __syncthreads();
  }
}

// The rank of the last element that is in: bits, and the index of the last of those equal.
static __device__ uint64_t last_rank(BlockShared &shared, const float *scores, int32_t n,
                                     const Threshold &threshold) {
  // The equal-th lowest index with these bits: its threads look at runs of neighbours.
  const int32_t own = (n + CKV_SELECT_THREADS - 1) / CKV_SELECT_THREADS;
  const int32_t begin = min(n, static_cast<int32_t>(threadIdx.x) * own), end = min(n, begin + own);
  int32_t equal = 0, total;
  for (int32_t i = begin; i < end; i++) equal += ckv_score_bits(scores[i]) == threshold.bits;
  int32_t before = ckv_block_scan(shared, equal, &total);
  if (before < threshold.equal && threshold.equal <= before + equal) {
    for (int32_t i = begin; i < end; i++) {
      if (ckv_score_bits(scores[i]) != threshold.bits || ++before != threshold.equal) continue;
      shared.best = static_cast<uint64_t>(threshold.bits) << 32 | i;
    }
  }
  __syncthreads();
  return shared.best;
}

#endif
