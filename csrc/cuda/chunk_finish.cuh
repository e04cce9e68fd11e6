// After the pass over the keys: its sums, weighed by what the log-sum-exps turned out to be.
#ifndef CKV_CHUNK_FINISH_CUH
#define CKV_CHUNK_FINISH_CUH

#include "chunk_args.cuh"
#include "ptx.cuh"

constexpr int CKV_FINISH_THREADS = 512;  // four a row of a unit

struct ChunkScores {
  float *data[CKV_CHUNK_LAYERS];  // [batch, chunks]
};

// A thread block per sequence and 16 chunks.
__global__ void __launch_bounds__(CKV_FINISH_THREADS)
    ckv_chunk_finish_kernel(const __grid_constant__ ChunkArgs a,
                            const __grid_constant__ ChunkScores out, int32_t mean) {
  ckv_chain();
  constexpr int WARPS = CKV_FINISH_THREADS / 32;
  const int32_t groups = a.tiles / a.parts, units = a.score.keys.num_kv_heads * a.score.row_blocks;
  const int32_t group = blockIdx.x % groups, sequence = blockIdx.x / groups;
  const int32_t row = threadIdx.x / 4, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float4 total = make_float4(0, 0, 0, 0);
#pragma unroll 8
  for (int32_t i = 0; i < units * a.parts; i++) {
    const int32_t of_sequence = i / a.parts;
    const int64_t unit = static_cast<int64_t>(sequence) * units + of_sequence;
    const int64_t at = (unit * a.tiles + group * a.parts + i % a.parts) * CKV_CHUNK_ROWS + row;
    // Rows that are not there have left nothing.
    const bool counts = of_sequence % a.score.row_blocks * CKV_CHUNK_ROWS + row < a.score.rows;
    const float4 sums = counts ? __ldcs(a.sums + at * 4 + threadIdx.x % 4) : float4{};
    const float base = counts ? __ldcs(a.bases + at) : 0;
    const float lse = __ldcg(a.score.log_sum_exp + unit * CKV_CHUNK_ROWS + row);
    // Of the weight, which may be too small for a float where its product is not.
    const float root = counts ? ckv_exp2(0.5f * (base - lse)) : 0;
    total.x += sums.x * root * root;
    total.y += sums.y * root * root;
    total.z += sums.z * root * root;
    total.w += sums.w * root * root;
  }
#pragma unroll
  for (int other = 4; other < 32; other *= 2) {
    total.x += __shfl_xor_sync(0xffffffffu, total.x, other);
    total.y += __shfl_xor_sync(0xffffffffu, total.y, other);
    total.z += __shfl_xor_sync(0xffffffffu, total.z, other);
    total.w += __shfl_xor_sync(0xffffffffu, total.w, other);
  }
  __shared__ float of_warp[WARPS][CKV_TILE_CHUNKS];
  if (lane < 4) {
    of_warp[warp][2 * lane] = total.x;
    of_warp[warp][2 * lane + 1] = total.y;
    of_warp[warp][8 + 2 * lane] = total.z;
    of_warp[warp][9 + 2 * lane] = total.w;
  }
  __syncthreads();
  const int64_t chunk = static_cast<int64_t>(group) * CKV_TILE_CHUNKS + threadIdx.x;
  const int64_t first = chunk * a.chunk_size;
  if (threadIdx.x >= CKV_TILE_CHUNKS || first >= a.scored) return;
  float sum = 0;
  for (int i = 0; i < WARPS; i++) sum += of_warp[i][threadIdx.x];
  if (!(sum < INFINITY)) atomicOr(a.score.fault, CKV_FAULT_NUMERIC);
  if (mean) sum /= static_cast<float>(min(static_cast<int64_t>(a.chunk_size), a.scored - first));
  const int32_t batch = a.score.keys.batch;
  const int64_t chunks = (a.scored + a.chunk_size - 1) / a.chunk_size;
  out.data[sequence / batch][sequence % batch * chunks + chunk] = sum;
}

#endif
