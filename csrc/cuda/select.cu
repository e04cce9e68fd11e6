// Stage two on the device. The rules are those of src/select/; so are the bits of chunk scores.
#include "select_rules.cuh"
#include "select_tokens.cuh"

#include <algorithm>

#include "host.h"
#include "ptx.cuh"
#include "select.h"
#include "stages.h"
#include "workspace.h"

static_assert(sizeof(BlockShared) + sizeof(TokenSums) + TILE_BYTES <= 99 * 1024,
              "what a block can have on every card");

static __device__ void keep_range(int32_t *indices, int32_t at, int32_t begin, int32_t end) {
  for (int32_t i = threadIdx.x; i < end - begin; i += CKV_SELECT_THREADS) {
    indices[at + i] = begin + i;
  }
}

// Elements of `size` tokens each compete for budget.rest places. Returns how many are kept.
template <typename TokenScores>
static __device__ int32_t select_best(BlockShared &shared, const SelectArgs &a,
                                      const float *elements, int32_t size, const Budget &budget,
                                      int32_t n, int32_t *indices, TokenScores token_scores) {
  const int32_t num = (budget.len + size - 1) / size;
  const int32_t k = min(budget.rest / size, num);
  uint64_t last = 0;
  if (k > 0) last = last_rank(shared, elements, num, ckv_block_topk(shared, elements, num, k));
  const bool any = k > 0;
  const auto chosen = [&](int32_t j) {
    return any && (static_cast<uint64_t>(ckv_score_bits(elements[j])) << 32 | j) <= last;
  };
  const auto length = [&](int32_t j) { return min(size, budget.len - j * size); };

  if (threadIdx.x == 0) shared.num_runs = 0;
  __syncthreads();
  if (a.params.method == CKV_METHOD_CHUNKKV && a.params.fill == CKV_FILL_EXACT) {
    // Only the last chunk can be short.
    const int32_t taken = k * size - (num > 0 && chosen(num - 1) ? size - length(num - 1) : 0);
    find_runs(shared, a, elements, num, budget, last, budget.rest - taken, token_scores);
  }

  const int32_t own = (num + CKV_SELECT_THREADS - 1) / CKV_SELECT_THREADS;
  const int32_t begin = min(num, static_cast<int32_t>(threadIdx.x) * own);
  const int32_t end = min(num, begin + own);
  const auto run_of = [&](int32_t j) {
    for (int r = 0; r < shared.num_runs; r++) {
      if (shared.run_chunk[r] == j) return r;
    }
    return -1;
  };
  int32_t count = 0, total;
  for (int32_t j = begin; j < end; j++) {
    const int r = run_of(j);
    count += chosen(j) ? length(j) : r >= 0 ? shared.run_length[r] : 0;
  }
  int32_t at = ckv_block_scan(shared, count, &total);
  for (int32_t j = begin; j < end; j++) {
    const int r = run_of(j);
    const int32_t from = !chosen(j) && r >= 0 ? shared.run_begin[r] : j * size;
    const int32_t tokens = chosen(j) ? length(j) : r >= 0 ? shared.run_length[r] : 0;
    for (int32_t i = 0; i < tokens; i++) indices[at++] = from + i;
  }
  keep_range(indices, total, budget.newest, n);
  return total + n - budget.newest;
}

static __global__ void __launch_bounds__(CKV_SELECT_THREADS)
    select_kernel(const __grid_constant__ SelectArgs a,
                  const __grid_constant__ TokenSource source) {
  __shared__ BlockShared shared;
  extern __shared__ float tile[];
  ckv_chain();
  const int32_t head = blockIdx.x % a.num_heads, sequence = blockIdx.x / a.num_heads;
  const int32_t b = sequence % a.batch, layer = sequence / a.batch;
  const int64_t set = static_cast<int64_t>(b) * a.num_heads + head;
  int32_t *indices = a.indices[layer] + set * a.capacity;
  const int32_t n = a.kv_lens ? max(0, min(a.kv_lens[b], a.kv_len)) : a.kv_len;
  const ckv_params &p = a.params;

  if (*a.fault) {  // nothing will be moved
    if (threadIdx.x == 0 && head == 0) a.lens[layer][b] = -1;
    return;
  }
  int32_t kept = n;
  if (p.method == CKV_METHOD_FULL || (p.method == CKV_METHOD_STREAMING_LLM && p.budget >= n)) {
    keep_range(indices, 0, 0, n);
  } else if (p.method == CKV_METHOD_STREAMING_LLM) {
    const int32_t sinks = p.num_sinks < p.budget ? p.num_sinks : p.budget - 1;
    keep_range(indices, 0, 0, sinks);
    keep_range(indices, sinks, n - (p.budget - sinks), n);
    kept = p.budget;
  } else {
    const Budget budget = split_budget(p, n);
    const bool chunks = p.method == CKV_METHOD_CHUNKKV;
    const float *scores = a.scores[layer] + set * (a.has_chunks ? a.max_chunks : a.kv_len);
    const float *elements = scores;
    bool nan = false;
    if (chunks) {
      const bool fits = a.max_chunks <= SHARED_CHUNKS;
      float *shared_chunks = tile + TILE_TOKENS;
      if (!a.has_chunks) {
        float *sums =
            fits ? shared_chunks : a.chunk_scores + static_cast<int64_t>(sequence) * a.max_chunks;
        nan = sum_chunks(p, scores, budget.len, sums, tile);
        elements = sums;
      } else if (fits) {
        for (int32_t j = threadIdx.x; j < a.max_chunks; j += CKV_SELECT_THREADS) {
          shared_chunks[j] = scores[j];
        }
        elements = shared_chunks;
      }
    } else {
      for (int32_t t = threadIdx.x; t < budget.len; t += CKV_SELECT_THREADS) {
        nan |= scores[t] != scores[t];
      }
    }
    if (__syncthreads_or(nan)) {
      if (threadIdx.x == 0) {
        atomicOr(a.fault, CKV_FAULT_NUMERIC);
        if (head == 0) a.lens[layer][b] = -1;
      }
      return;
    }
    const auto token_scores = [&](int32_t begin, int32_t end) -> const float * {
      if (!a.has_chunks) return scores + begin;
      ckv_score_tokens(source, layer, b, begin, end, tile);
      return tile;
    };
    kept = select_best(shared, a, elements, chunks ? p.chunk_size : 1, budget, n, indices,
                       token_scores);
  }
  if (threadIdx.x == 0 && head == 0) a.lens[layer][b] = kept;
}

static __global__ void chunk_scores_kernel(const __grid_constant__ SelectArgs a) {
  ckv_chain();
  const int32_t n = a.kv_lens ? max(0, min(a.kv_lens[blockIdx.x], a.kv_len)) : a.kv_len;
  const int32_t len = n - min(a.params.window, n);
  const float *scores = a.scores[0] + static_cast<int64_t>(blockIdx.x) * a.kv_len;
  float *out = a.chunk_scores + static_cast<int64_t>(blockIdx.x) * a.max_chunks;
  const int32_t c = a.params.chunk_size;
  for (int64_t j = threadIdx.x; j < a.max_chunks; j += blockDim.x) {
    const int64_t begin = j * c;
    out[j] = begin >= len ? 0
                          : chunk_score(a.params, scores, static_cast<int32_t>(begin),
                                        len - begin > c ? static_cast<int32_t>(begin) + c : len);
  }
}

static int32_t max_chunks_of(const ckv_params *params, int32_t kv_len) {
  const int32_t len = std::max(0, kv_len - params->window);
  return len / params->chunk_size + (len % params->chunk_size != 0);
}

int64_t ckv_cuda_select_bytes(const ckv_params *params, const ckv_layer *layers,
                              int32_t num_layers) {
  if (params->method != CKV_METHOD_CHUNKKV || num_layers == 0) return 0;
  CkvWorkspaceCursor at;
  at.take(static_cast<int64_t>(std::min(num_layers, CKV_SELECT_LAYERS)) * layers[0].keys->batch *
          max_chunks_of(params, layers[0].keys->kv_len) * 4);
  return at.end;
}

ckv_status ckv_cuda_chunk_scores(const ckv_cuda_call *call, const ckv_params *params,
                                 const ckv_scores *scores, float *chunk_scores) {
  SelectArgs a{};
  a.params = *params;
  a.kv_lens = scores->kv_lens;
  a.kv_len = scores->kv_len;
  a.batch = scores->batch;
  a.max_chunks = max_chunks_of(params, scores->kv_len);
  a.chunk_scores = chunk_scores;
  a.scores[0] = scores->data;
  if (a.batch == 0 || a.max_chunks == 0) return CKV_OK;
  return ckv_cuda_check(call,
                        ckv_cuda_launch(chunk_scores_kernel, a.batch, CKV_SELECT_THREADS, 0,
                                        ckv_cuda_stream(call), a),
                        "the chunk score kernel to start");
}

ckv_status ckv_cuda_select(const ckv_cuda_call *call, const ckv_params *params,
                           const ckv_scores *scores, int32_t num_layers, const ckv_kept *kept) {
  return ckv_cuda_select_from(call, params, scores, num_layers, kept, nullptr, nullptr);
}

ckv_status ckv_cuda_select_from(const ckv_cuda_call *call, const ckv_params *params,
                                const ckv_scores *scores, int32_t num_layers, const ckv_kept *kept,
                                const TokenSource *of_chunks, const ckv_layer *layers) {
  if (num_layers == 0 || scores[0].batch == 0) return CKV_OK;
  SelectArgs a{};
  TokenSource source{};
  if (of_chunks) source = *of_chunks;
  a.has_chunks = of_chunks != nullptr;
  a.params = *params;
  a.kv_lens = scores[0].kv_lens;
  a.kv_len = scores[0].kv_len;
  a.batch = scores[0].batch;
  a.max_chunks = max_chunks_of(params, a.kv_len);
  uint8_t *base = static_cast<uint8_t *>(call->workspace);
  a.fault = reinterpret_cast<uint32_t *>(base);
  const bool chunks = params->method == CKV_METHOD_CHUNKKV;
  const bool sums = chunks && !of_chunks;
  if (sums) a.chunk_scores = reinterpret_cast<float *>(base + CKV_WORKSPACE_HEADER);
  ckv_status status = ckv_cuda_check(
      call,
      cudaFuncSetAttribute(select_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, TILE_BYTES),
      "shared memory for the select kernel");
  for (int32_t first = 0, count; first < num_layers && !status; first += count) {
    count = 1;
    while (count < CKV_SELECT_LAYERS && first + count < num_layers &&
           kept[first + count].capacity == kept[first].capacity &&
           kept[first + count].num_heads == kept[first].num_heads) {
      count++;
    }
    source.first_layer = first;
    a.num_heads = kept[first].num_heads;
    a.capacity = kept[first].capacity;
    const int64_t bytes = CKV_WORKSPACE_HEADER +
                          (sums ? static_cast<int64_t>(count) * a.batch * a.max_chunks * 4 : 0);
    if (bytes > call->workspace_bytes) {
      return ckv_cuda_fail(
          call, CKV_ERROR_OUT_OF_MEMORY, "Expected a workspace of %lld bytes but found %lld",
          static_cast<long long>(bytes), static_cast<long long>(call->workspace_bytes));
    }
    for (int32_t l = 0; l < count; l++) {
      a.scores[l] = scores[first + l].data;
      if (of_chunks) {
        source.data[l] = layers[first + l].keys->data;
        source.query_data[l] = static_cast<const uint8_t *>(layers[first + l].queries->data);
      }
      a.indices[l] = kept[first + l].indices;
      a.lens[l] = kept[first + l].lens;
    }
    status = ckv_cuda_check(
        call,
        ckv_cuda_launch(select_kernel, static_cast<int64_t>(count) * a.batch * a.num_heads,
                        CKV_SELECT_THREADS, chunks ? TILE_BYTES : 0, ckv_cuda_stream(call), a,
                        source),
        "the select kernel to start");
  }
  return status;
}
