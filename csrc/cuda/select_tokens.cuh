// Scores of a few tokens from queries, keys and log-sum-exps: a thread block multiplies all rows of a
// sequence by 16 keys at a time.
#ifndef CKV_SELECT_TOKENS_CUH
#define CKV_SELECT_TOKENS_CUH

#include "mma.cuh"
#include "score_epilogue.cuh"
#include "select.cuh"

constexpr int CKV_TOKENS_AT_ONCE = 16;
using TokenSums = float[CKV_SELECT_THREADS / 32][CKV_TOKENS_AT_ONCE];  // of each warp's rows

// Eight elements of a row as four pairs; zeros past its end or where there is no row. Elements of rows and
// keys may be in any order as long as it is the same: whoever loads 16 bytes loads fewer lines of cache.
__device__ inline uint4 ckv_eight_elements(const uint8_t *row, int32_t at, int32_t dim) {
  return row && at < dim ? __ldg(reinterpret_cast<const uint4 *>(row + 2 * at)) : uint4{};
}

// A row of a unit, packed or where the caller has it.
__device__ inline const uint8_t *ckv_query_row(const TokenSource &s, int32_t layer, int32_t b,
                                               int64_t unit, int32_t head, int32_t row_block,
                                               int32_t row) {
  if (s.queries) {
    return s.queries + 2 * (unit * s.row_block + row) * static_cast<int64_t>(s.packed_dim);
  }
  const int32_t index = row_block * s.row_block + row;
  return index < s.rows ? s.query_rows.at(s.query_data[layer], b, head, index) : nullptr;
}

// A warp's sums over its rows of 16 keys' attention: lanes 0 to 3 have keys 2 lane and 2 lane + 1, lanes 4
// to 7 those 8 further.
template <typename T>
__device__ inline float2 ckv_sum_columns(const TokenSource &s, int64_t first_unit, int32_t layer,
                                         int32_t b, int32_t begin, int32_t end) {
  const int lane = threadIdx.x % 32;
  const int32_t of_unit = s.row_block / 16, parts = s.keys.num_kv_heads * s.row_blocks * of_unit;
  const uint8_t *data = static_cast<const uint8_t *>(s.data[layer]);
  float2 sums[2] = {};  // of key groups: columns pair and pair + 1
  for (int32_t part = threadIdx.x / 32; part < parts; part += CKV_SELECT_THREADS / 32) {
    const int32_t of_sequence = part / of_unit, head = of_sequence / s.row_blocks;
    const int64_t unit = first_unit + of_sequence;
    const int32_t row = part % of_unit * 16 + lane / 4;
    const uint8_t *rows[2];
    for (int i = 0; i < 2; i++) {
      rows[i] = ckv_query_row(s, layer, b, unit, head, of_sequence % s.row_blocks, row + 8 * i);
    }
    const uint8_t *keys[2];
    for (int k = 0; k < 2; k++) {
      const int32_t t = begin + 8 * k + lane / 4;
      keys[k] = t < end ? data + s.keys.offset(b, head, t) : nullptr;
    }
    float acc[2][4] = {};
#pragma unroll 2
    for (int32_t at = lane % 4 * 8; at < s.packed_dim; at += 32) {
      const uint4 low = ckv_eight_elements(rows[0], at, s.keys.head_dim);
      const uint4 high = ckv_eight_elements(rows[1], at, s.keys.head_dim);
      for (int k = 0; k < 2; k++) {
        const uint4 key = ckv_eight_elements(keys[k], at, s.keys.head_dim);
        ckv_mma(acc[k], {low.x, high.x, low.y, high.y}, key.x, key.y, T{});
        ckv_mma(acc[k], {low.z, high.z, low.w, high.w}, key.z, key.w, T{});
      }
    }
    const float by = s.unit_scale ? s.unit_scale[unit] : 1;
    const float *lse = s.log_sum_exp + unit * s.row_block + row;
    for (int k = 0; k < 2; k++) {
      const float scale = ckv_cap_logits(s, by, acc[k]);
      for (int i = 0; i < 4; i++) {
        const int32_t index = of_sequence % s.row_blocks * s.row_block + row + i / 2 * 8;
        const float p = index < s.rows ? ckv_exp2(fmaf(acc[k][i], scale, -lse[i / 2 * 8])) : 0;
        (i % 2 ? sums[k].y : sums[k].x) += p;
      }
    }
  }
  for (int k = 0; k < 2; k++) {
    for (int other = 4; other < 32; other *= 2) {
      sums[k].x += __shfl_xor_sync(0xffffffffu, sums[k].x, other);
      sums[k].y += __shfl_xor_sync(0xffffffffu, sums[k].y, other);
    }
  }
  return lane / 4 % 2 ? sums[1] : sums[0];
}

// out[i], in shared memory: the score of token begin + i; of all threads of the block.
__device__ inline void ckv_score_tokens(const TokenSource &s, int32_t layer, int32_t b,
                                        int32_t begin, int32_t end, float *out) {
  constexpr int WARPS = CKV_SELECT_THREADS / 32;
  __shared__ TokenSums of_warp;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t units = static_cast<int64_t>(s.keys.num_kv_heads) * s.row_blocks;
  const int64_t first_unit =
      (static_cast<int64_t>(s.first_layer + layer) * s.keys.batch + b) * units;
  for (int32_t first = begin; first < end; first += CKV_TOKENS_AT_ONCE) {
    const float2 sums = s.bf16 ? ckv_sum_columns<__nv_bfloat16>(s, first_unit, layer, b, first, end)
                               : ckv_sum_columns<__half>(s, first_unit, layer, b, first, end);
    if (lane < 8) {
      of_warp[warp][lane / 4 * 8 + lane % 4 * 2] = sums.x;
      of_warp[warp][lane / 4 * 8 + lane % 4 * 2 + 1] = sums.y;
    }
    __syncthreads();
    if (threadIdx.x < CKV_TOKENS_AT_ONCE && first + static_cast<int32_t>(threadIdx.x) < end) {
      float sum = 0;
      for (int i = 0; i < WARPS; i++) sum += of_warp[i][threadIdx.x];
      out[first - begin + threadIdx.x] = sum;
    }
    __syncthreads();
  }
}

#endif
