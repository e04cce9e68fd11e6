// The score kernels, written once over the vector type of the ISA file that includes this. It
// defines before:
//   TARGET                     function attribute that turns the instructions on
//   LANES, VECS, TOKENS        f32 in a vector; micro kernel: VECS vectors of rows x TOKENS tokens
//   vec, v_load, v_store, v_set1, v_add, v_sub, v_mul, v_div, v_fma (a * b + c)
//   v_max, v_min               of (constant, x): x if x is NaN
//   v_abs, v_copysign          (magnitude, sign)
//   v_exponent                 bits of x << 23, as f32
//   v_sum                      sum of all lanes, in a fixed order
// and may define GEMM_CUSTOM and a gemm of its own.
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "ahead.h"
#include "kernels.h"

#define INLINE static inline __attribute__((always_inline)) TARGET
#define BLOCK_ROWS (LANES * VECS)

_Static_assert(CKV_SCORE_TILE % TOKENS == 0, "a tile is whole micro kernels");

// 2^(y + 1/2) for y <= 127: y is split into an integer, which becomes the exponent, and a rest in
// [-1/2, 1/2], for which a polynomial of degree 5 gives 2^(rest + 1/2) in [1, 2] (minimax, relative
// error 0.75e-7). With the roundings of its evaluation the relative error is below 4 * 2^-24.
// y < -126.5 gives 0, NaN gives NaN.
INLINE vec exp2_half(vec y) {
  const vec magic = v_set1(0x1.8p23f + 127.0f);  // rounds to an integer, biased as an exponent is
  y = v_max(v_set1(-127.0f), y);
  const vec biased = v_add(y, magic);
  const vec rest = v_sub(y, v_sub(biased, magic));
  vec p = v_set1(0x1.ec320ap-10f);
  p = v_fma(p, rest, v_set1(0x1.c05fb0p-7f));
  p = v_fma(p, rest, v_set1(0x1.41881ap-4f));
  p = v_fma(p, rest, v_set1(0x1.5be0a0p-2f));
  p = v_fma(p, rest, v_set1(0x1.f5e45cp-1f));
  p = v_fma(p, rest, v_set1(0x1.6a09e8p+0f));
  return v_mul(p, v_exponent(biased));
}

INLINE int32_t padded_dim(int32_t head_dim) {
  return (head_dim + CKV_SCORE_DIM_STEP - 1) / CKV_SCORE_DIM_STEP * CKV_SCORE_DIM_STEP;
}

#ifndef GEMM_CUSTOM
// TOKENS keys against `vecs` vectors of query rows.
INLINE void gemm(const float *queries, const float *keys, int32_t dim, float *logits,
                 ckv_score_ahead *ahead, const int vecs) {
  vec sum[TOKENS][VECS];
  _Pragma("GCC unroll 16") for (int t = 0; t < TOKENS; t++) {
    _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) sum[t][v] = v_set1(0.0f);
  }
  for (int32_t k0 = 0; k0 < dim; k0 += CKV_SCORE_DIM_STEP) {
    ckv_score_ask(ahead);
    _Pragma("GCC unroll 4") for (int32_t k = k0; k < k0 + CKV_SCORE_DIM_STEP; k++) {
      CKV_SCORE_STEP();
      vec query[VECS];
      _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) {
        query[v] = v_load(queries + ((ptrdiff_t)k * vecs + v) * LANES);
      }
      _Pragma("GCC unroll 16") for (int t = 0; t < TOKENS; t++) {
        const vec key = v_set1(keys[(ptrdiff_t)t * dim + k]);
        _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) {
          sum[t][v] = v_fma(key, query[v], sum[t][v]);
        }
      }
    }
  }
  _Pragma("GCC unroll 16") for (int t = 0; t < TOKENS; t++) {
    _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) {
      v_store(logits + (t * vecs + v) * LANES, sum[t][v]);
    }
  }
}
#endif

// logits -> tanh(q.k * scale / cap), with tanh(x) = (1 - 2^(-2 log2(e) |x|)) / (1 + ...).
INLINE void soft_cap(const ckv_score_tile *tile, float *logits, int32_t count) {
  const vec scale = v_set1(tile->cap_scale);
  for (int32_t i = 0; i < count; i += LANES) {
    const vec x = v_load(logits + i);
    const vec power = exp2_half(v_fma(v_abs(x), scale, v_set1(-0.5f)));
    const vec tanh = v_div(v_sub(v_set1(1.0f), power), v_add(v_set1(1.0f), power));
    v_store(logits + i, v_copysign(tanh, x));
  }
}

// The largest logits of a block of rows plus a half, in units of log2.
INLINE void row_refs(const ckv_score_tile *tile, const float *logits, float *row_ref,
                     const int vecs) {
  vec max[VECS];
  _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) max[v] = v_load(logits + v * LANES);
  for (int32_t t = 1; t < tile->tokens; t++) {
    _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) {
      max[v] = v_max(max[v], v_load(logits + (t * vecs + v) * LANES));
    }
  }
  const vec scale = v_set1(tile->logit_scale);
  for (int v = 0; v < vecs; v++) {
    // -FLT_MAX: a tile whose logits are all -inf gives weights of 0, not NaN.
    v_store(row_ref + v * LANES, v_max(v_set1(-FLT_MAX), v_fma(max[v], scale, v_set1(0.5f))));
  }
}

// Logits of a block of rows to weights, in place, and their sums.
INLINE void exponentiate(const ckv_score_tile *tile, float *logits, const float *row_ref,
                         float *row_sum, const int vecs, const int fixed_ref) {
  const vec scale = v_set1(tile->logit_scale);
  const int32_t tokens = tile->tokens;
  vec minus_ref[VECS], sum[VECS];
  _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) {
    minus_ref[v] = v_sub(v_set1(0.0f), v_load(row_ref + v * LANES));
    sum[v] = v_set1(0.0f);
  }
  for (int32_t t = 0; t < tokens; t++) {
    _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) {
      float *at = logits + (t * vecs + v) * LANES;
      vec y = v_fma(v_load(at), scale, minus_ref[v]);
      if (fixed_ref) y = v_min(v_set1(127.0f), y);
      const vec weight = exp2_half(y);
      sum[v] = v_add(sum[v], weight);
      v_store(at, weight);
    }
  }
  if (fixed_ref) return;
  _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) v_store(row_sum + v * LANES, sum[v]);
}

INLINE void mask_block(const ckv_score_tile *tile, float *logits, int32_t first, int32_t count) {
  for (int32_t r = 0; r < count; r++) {
    for (int32_t t = tile->row_visible[first + r]; t < tile->tokens; t++) {
      logits[(ptrdiff_t)t * count + r] = -INFINITY;
    }
  }
}

// One block of `vecs` vectors of rows.
INLINE void score_block(const ckv_score_tile *tile, int32_t first, ckv_score_ahead *ahead,
                        const int vecs) {
  const int32_t dim = padded_dim(tile->head_dim);
  const int32_t rows = vecs * LANES;
  const float *queries = (const float *)tile->queries + (ptrdiff_t)first * dim;
  float *logits = tile->weights + (ptrdiff_t)first * CKV_SCORE_TILE;
  for (int32_t t = 0; t < tile->tokens; t += TOKENS) {
    gemm(queries, (const float *)tile->keys + (ptrdiff_t)t * dim, dim, logits + t * rows, ahead,
         vecs);
  }
  if (tile->capped) soft_cap(tile, logits, tile->tokens * rows);
  if (tile->row_visible) mask_block(tile, logits, first, rows);
  float *row_ref = tile->row_ref + first;
  if (tile->fixed_ref) {
    exponentiate(tile, logits, row_ref, NULL, vecs, 1);
  } else {
    row_refs(tile, logits, row_ref, vecs);
    exponentiate(tile, logits, row_ref, tile->row_sum + first, vecs, 0);
  }
}

typedef void (*row_loader)(const char *row, int32_t head_dim, float *out);

// Converts the tile's keys once; every block of rows then reads them from cache.
INLINE void load_keys(const ckv_score_tile *tile, row_loader load) {
  const int32_t dim = padded_dim(tile->head_dim);
  float *key = tile->keys;
  for (int32_t t = 0; t < tile->tokens; t++, key += dim) {
    load(tile->key_rows[t], tile->head_dim, key);
    for (int32_t k = tile->head_dim; k < dim; k++) key[k] = 0.0f;
  }
  // The micro kernel always works on whole groups of tokens; what it adds is not read.
  for (int32_t t = tile->tokens; t % TOKENS != 0; t++, key += dim) {
    memcpy(key, key - dim, (size_t)dim * sizeof *key);
  }
}

INLINE void score_rows(const ckv_score_tile *tile, int32_t row_bytes) {
  const int32_t blocks = tile->rows / BLOCK_ROWS + tile->rows % BLOCK_ROWS / LANES;
  const int32_t groups = (tile->tokens + TOKENS - 1) / TOKENS;
  const int32_t asks = blocks * groups * (padded_dim(tile->head_dim) / CKV_SCORE_DIM_STEP);
  const int32_t lines = tile->next_tokens * ((row_bytes + 63) / 64);
  ckv_score_ahead ahead = {tile->next_rows, tile->next_tokens, 0, row_bytes,
                           (lines + asks - 1) / asks};
  int32_t first = 0;
  for (; first + BLOCK_ROWS <= tile->rows; first += BLOCK_ROWS) {
    score_block(tile, first, &ahead, VECS);
  }
  for (; first < tile->rows; first += LANES) score_block(tile, first, &ahead, 1);
}
