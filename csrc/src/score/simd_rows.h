// The kernels of an ISA that do not depend on the key dtype; included after simd.h.

TARGET static void combine(float *row_ref, const float *row_sum, int32_t num_tiles, int32_t rows,
                           int32_t used, int32_t first, int32_t count, float *total) {
  for (int32_t r = first; r < first + count; r += LANES) {
    vec max = v_load(row_ref + r);
    for (int32_t i = 1; i < num_tiles; i++) {
      max = v_max(max, v_load(row_ref + (ptrdiff_t)i * rows + r));
    }
    const vec minus_max = v_sub(v_set1(-0.5f), max);
    vec sum = v_set1(0.0f);
    vec lost = v_set1(0.0f);  // Kahan: hundreds of tiles add no error
    for (int32_t i = 0; i < num_tiles; i++) {
      float *ref = row_ref + (ptrdiff_t)i * rows + r;
      const vec weight = exp2_half(v_add(v_load(ref), minus_max));
      v_store(ref, weight);
      const vec term = v_sub(v_mul(weight, v_load(row_sum + (ptrdiff_t)i * rows + r)), lost);
      const vec next = v_add(sum, term);
      lost = v_sub(v_sub(next, sum), term);
      sum = next;
    }
    v_store(total + r, sum);
    float inverse[LANES];
    v_store(inverse, v_div(v_set1(1.0f), sum));
    for (int32_t lane = 0; lane < LANES; lane++) {
      if (r + lane >= used) inverse[lane] = 0.0f;
    }
    const vec scale = v_load(inverse);
    for (int32_t i = 0; i < num_tiles; i++) {
      float *weight = row_ref + (ptrdiff_t)i * rows + r;
      v_store(weight, v_mul(v_load(weight), scale));
    }
  }
}

INLINE void mass_block(const float *weights, const float *row_weight, int32_t tokens, float *sums,
                       const int vecs) {
  vec scale[VECS];
  _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) scale[v] = v_load(row_weight + v * LANES);
  for (int32_t t = 0; t < tokens; t++) {
    vec sum = v_load(sums + t * LANES);
    _Pragma("GCC unroll 4") for (int v = 0; v < vecs; v++) {
      sum = v_fma(v_load(weights + (t * vecs + v) * LANES), scale[v], sum);
    }
    v_store(sums + t * LANES, sum);
  }
}

TARGET static void mass(const float *weights, const float *row_weight, int32_t rows, int32_t tokens,
                        float *mass) {
  float sums[CKV_SCORE_TILE * LANES];
  memset(sums, 0, sizeof sums);
  int32_t first = 0;
  for (; first + BLOCK_ROWS <= rows; first += BLOCK_ROWS) {
    mass_block(weights + (ptrdiff_t)first * CKV_SCORE_TILE, row_weight + first, tokens, sums, VECS);
  }
  for (; first < rows; first += LANES) {
    mass_block(weights + (ptrdiff_t)first * CKV_SCORE_TILE, row_weight + first, tokens, sums, 1);
  }
  for (int32_t t = 0; t < tokens; t++) mass[t] += v_sum(v_load(sums + t * LANES));
}
