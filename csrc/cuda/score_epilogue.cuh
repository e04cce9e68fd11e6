// What happens to a tile of products, and what the last one of a unit or an item does.
#ifndef CKV_SCORE_EPILOGUE_CUH
#define CKV_SCORE_EPILOGUE_CUH

#include "ptx.cuh"
#include "score_args.cuh"

constexpr float CKV_NONE = -INFINITY;

// Products to logits in units of log2, before the pass multiplies by `scale`.
// Args: logit_scale, cap and cap_scale, as in score_args.cuh.
template <typename Args, int N>
__device__ inline float ckv_cap_logits(const Args &a, float unit_scale, float (&acc)[N]) {
  if (a.cap <= 0) return a.logit_scale * unit_scale;
#pragma unroll
  for (int i = 0; i < N; i++) {
    // cap tanh(y) = cap (1 - 2 / (1 + e^2y)); an infinite e^2y is right too.
    const float e = ckv_exp2(acc[i] * (a.cap_scale * unit_scale));
    acc[i] = a.cap - __fdividef(2 * a.cap, 1 + e);
  }
  return 1;
}

// A row's maximum and sum of exp2(logit - maximum), kept by each thread for what it sees.
struct RowSum {
  float max = CKV_NONE, sum = 0;

  __device__ void merge(float other_max, float other_sum) {
    const float m = fmaxf(max, other_max);
    if (m == CKV_NONE && sum == sum && other_sum == other_sum) return;
    sum = sum * ckv_exp2(max - m) + other_sum * ckv_exp2(other_max - m);
    max = m;
  }
  __device__ void merge_quad() {  // the four threads of a row
#pragma unroll
    for (int lane = 1; lane <= 2; lane *= 2) {
      const float m = __shfl_xor_sync(0xffffffffu, max, lane);
      const float s = __shfl_xor_sync(0xffffffffu, sum, lane);
      merge(m, s);
    }
  }
};

// One of the two rows that a thread has in an accumulator: elements 4 j + first + {0, 1}.
template <int FIRST, int N>
__device__ inline void ckv_add_row(RowSum &row, const float (&acc)[N], float scale) {
  float most = acc[FIRST];
#pragma unroll
  for (int j = 0; j < N; j += 4) most = fmaxf(most, fmaxf(acc[j + FIRST], acc[j + FIRST + 1]));
  const float max = fmaxf(row.max, most * scale);
  if (max == CKV_NONE) {
    // Nothing seen yet; NaN gets here too, fmaxf passes it by.
#pragma unroll
    for (int j = 0; j < N; j += 4) {
      if (acc[j + FIRST] != acc[j + FIRST] || acc[j + FIRST + 1] != acc[j + FIRST + 1]) {
        row.sum = NAN;
      }
    }
    return;
  }
  float sum0 = row.sum * ckv_exp2(row.max - max), sum1 = 0;
#pragma unroll
  for (int j = 0; j < N; j += 4) {
    sum0 += ckv_exp2(fmaf(acc[j + FIRST], scale, -max));
    sum1 += ckv_exp2(fmaf(acc[j + FIRST + 1], scale, -max));
  }
  row.sum = sum0 + sum1;
  row.max = max;
}

// A row's log-sum-exp, in units of log2, of `slots` maxima and sums that lie `stride` apart, in their order.
__device__ inline float ckv_combine_slots(const float2 *at, int32_t slots, int32_t stride) {
  constexpr int STEP = 16;
  RowSum total;
  for (int32_t first = 0; first < slots; first += STEP) {
    float2 part[STEP];
#pragma unroll
    for (int i = 0; i < STEP; i++) {
      part[i] = first + i < slots ? __ldcg(at + static_cast<int64_t>(first + i) * stride)
                                  : make_float2(CKV_NONE, 0);
    }
    float max = total.max;
#pragma unroll
    for (int i = 0; i < STEP; i++) max = fmaxf(max, part[i].x);
    const float base = max == CKV_NONE ? 0 : max;  // of nothing but -inf: the sum stays 0, or NaN
    float sum = total.sum * ckv_exp2(total.max - base);
#pragma unroll
    for (int i = 0; i < STEP; i++) sum += part[i].y * ckv_exp2(part[i].x - base);
    total.max = max;
    total.sum = sum;
  }
  return total.max + log2f(total.sum);
}

// One warp makes the log-sum-exp of 32 rows of one unit after the other, in the units' order, each
// when all its items have come.
template <int ROWS>
__device__ inline void ckv_combine_units(const ScoreArgs &a, int32_t arrivals_per_item,
                                         int32_t row_slots, int lane) {
  constexpr int PARTS = ROWS / 32;
  const int32_t units = a.num_heads * a.row_blocks;
  for (;;) {
    int32_t ticket = 0;
    if (lane == 0) ticket = static_cast<int32_t>(atomicAdd(a.combine_ticket, 1u));
    ticket = __shfl_sync(0xffffffffu, ticket, 0);
    const int32_t unit = ticket / PARTS, row = ticket % PARTS * 32 + lane;
    if (unit >= units) return;
    const ScoreItem item = ckv_head_at(a, unit / a.row_blocks);
    const int32_t items = ckv_items_of(a, 1, a.keys.len(item.batch));
    if (items == 0) continue;
    const uint32_t arrivals = static_cast<uint32_t>(items * arrivals_per_item);
    while (ckv_load_acquire(&a.pass1_done[unit]) != arrivals) __nanosleep(100);
    __syncwarp();
    const float lse =
        ckv_combine_slots(a.maxima + static_cast<int64_t>(unit) * a.items * row_slots * ROWS + row,
                          items * row_slots, ROWS);
    const bool counts = unit % a.row_blocks * ROWS + row < a.rows;
    if (counts && !(fabsf(lse) < INFINITY)) atomicOr(a.fault, CKV_FAULT_NUMERIC);
    // Any NaN will do, but for the one that says not yet.
    __stcg(a.log_sum_exp + static_cast<int64_t>(unit) * ROWS + row,
           lse == lse ? lse : __uint_as_float(0x7fc00000u));
  }
}

// What pass 2 subtracts from each row's logits; rows that are not there weigh nothing.
__device__ inline float ckv_row_norm(const ScoreArgs &a, const ScoreItem &item, int32_t row) {
  const int32_t index = item.row_block * a.row_block + row;
  if (index >= a.rows) return CKV_NONE;
  const float *given = a.layers[item.layer].log_sum_exp;
  if (!given) {
    const float *at = a.log_sum_exp + static_cast<int64_t>(item.unit(a)) * a.row_block + row;
    uint32_t bits;
    while ((bits = ckv_load_relaxed(at)) == CKV_NOT_YET) __nanosleep(50);
    return -__uint_as_float(bits);
  }
  const int32_t head = item.head * a.group + index / a.window;
  const int32_t heads = a.keys.num_kv_heads * a.group;
  const float lse =
      given[(static_cast<int64_t>(item.batch) * heads + head) * a.window + index % a.window];
  if (!(fabsf(lse) < INFINITY)) atomicOr(a.fault, CKV_FAULT_NUMERIC);
  return -lse * 1.4426950408889634f;
}

__device__ inline float *ckv_partial(const ScoreArgs &a, const ScoreItem &item, int32_t part) {
  const int64_t sequence = static_cast<int64_t>(item.layer) * a.keys.batch + item.batch;
  return a.partial + (sequence * a.keys.num_kv_heads * a.row_blocks + part) * a.partial_stride;
}

#endif
