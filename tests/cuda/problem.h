// Random scoring problems: keys and queries as bytes and as the numbers that they are.
#ifndef CKV_CUDA_TEST_PROBLEM_H
#define CKV_CUDA_TEST_PROBLEM_H

#include "../csrc/score_encode.h"
#include "layouts.h"

typedef struct problem {
  ckv_params params;
  ckv_kv_view keys;
  ckv_query_view queries;
  enum layout layout;
  double key_norm, query_norm;  // the largest lengths of rows
} problem;

// The value of one element of a float type.
static double decode_element(int32_t dtype, const char *at) {
  uint16_t bits;
  float value;
  memcpy(&bits, at, dtype == CKV_F8_E4M3 ? 1 : 2);
  switch (dtype) {
    case CKV_F16:
      return decode_f16(bits);
    case CKV_BF16:
      return decode_bf16(bits);
    case CKV_F8_E4M3:
      return decode_f8((uint8_t)*at);
    default:
      memcpy(&value, at, 4);
      return (double)value;
  }
}

// A representable number near x: what is too fine for the type is cut off.
static void encode_element(int32_t dtype, float x, char *at) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  const uint32_t sign = bits >> 31;
  const int32_t exponent = (int32_t)(bits >> 23 & 255) - 127;
  uint16_t half = (uint16_t)(bits >> 16);
  if (dtype == CKV_F16) {
    half = exponent < -14
               ? 0
               : (uint16_t)(sign << 15 | (uint32_t)(exponent + 15) << 10 | (bits >> 13 & 1023));
  }
  if (dtype == CKV_F8_E4M3) {
    *at = (char)(exponent < -6 ? 0 : sign << 7 | (uint32_t)(exponent + 7) << 3 | (bits >> 20 & 7));
  } else {
    memcpy(at, dtype == CKV_F32 ? (const void *)&x : (const void *)&half, dtype == CKV_F32 ? 4 : 2);
  }
}

static int64_t element_bytes(int32_t dtype) {
  return dtype == CKV_F32 ? 4 : dtype == CKV_F8_E4M3 ? 1 : 2;
}

static float noise(float size) { return size * (2 * test_float() - 1); }

// Writes a random row with elements up to `size`; returns its length.
static double random_row(int32_t dtype, int32_t n, float size, char *row) {
  double squares = 0;
  const bool blocks = dtype == CKV_Q8_0 || dtype == CKV_Q4_0;
  for (int32_t j = 0; j < n && !blocks; j++) {
    char *at = row + j * element_bytes(dtype);
    encode_element(dtype, noise(size), at);
    const double x = decode_element(dtype, at);
    squares += x * x;
  }
  const int32_t block_bytes = dtype == CKV_Q8_0 ? 34 : 18;
  for (int32_t j = 0; j < n / 32 && blocks; j++) {
    char *block = row + (int64_t)j * block_bytes;
    encode_element(CKV_F16, (0.5f + test_float()) * size / (dtype == CKV_Q8_0 ? 127 : 8), block);
    const double scale = decode_element(CKV_F16, block);
    for (int32_t i = 2; i < block_bytes; i++) {
      const uint8_t byte = (uint8_t)test_random();
      block[i] = (char)byte;
      const double a = dtype == CKV_Q8_0 ? (int8_t)byte : (byte & 15) - 8;
      const double b = dtype == CKV_Q8_0 ? 0 : (byte >> 4) - 8;
      squares += scale * scale * (a * a + b * b);
    }
  }
  return sqrt(squares);
}

static char *key_row(const problem *p, int32_t b, int32_t g, int32_t t) {
  return (char *)p->keys.data + row_offset(&p->keys, b, g, t);
}

static char *query_row(const problem *p, int32_t b, int32_t h, int32_t i) {
  const ckv_query_view *q = &p->queries;
  return (char *)(uintptr_t)q->data + b * q->stride_batch + h * q->stride_head + i * q->stride_row;
}

static void fill_rows(problem *p, float key_size) {
  const ckv_kv_view *k = &p->keys;
  for (int64_t r = 0; r < (int64_t)k->batch * k->num_kv_heads; r++) {
    const int32_t b = (int32_t)(r / k->num_kv_heads), g = (int32_t)(r % k->num_kv_heads);
    for (int32_t t = 0; t < len_of(k, b); t++) {
      // Now and then a key that stands out.
      const float size = test_int(0, 63) ? key_size : 3 * key_size;
      p->key_norm = fmax(p->key_norm, random_row(k->dtype, k->head_dim, size, key_row(p, b, g, t)));
    }
  }
  const ckv_query_view *q = &p->queries;
  for (int64_t r = 0; r < (int64_t)q->batch * q->num_q_heads * q->window; r++) {
    char *row = query_row(p, (int32_t)(r / q->window / q->num_q_heads),
                          (int32_t)(r / q->window % q->num_q_heads), (int32_t)(r % q->window));
    p->query_norm = fmax(p->query_norm, random_row(q->dtype, q->head_dim, 2, row));
  }
}

static void query_layout(problem *p, int32_t dtype, int32_t num_q_heads) {
  ckv_query_view *q = &p->queries;
  const int64_t row = ckv_row_bytes(dtype, p->keys.head_dim);
  const int64_t gap = test_int(0, 3) ? 0 : element_bytes(dtype) * test_int(1, 9);
  *q = (ckv_query_view){.struct_size = sizeof *q,
                        .dtype = dtype,
                        .batch = p->keys.batch,
                        .num_q_heads = num_q_heads,
                        .window = p->params.window,
                        .head_dim = p->keys.head_dim,
                        .stride_row = row + gap,
                        .stride_head = (row + gap) * p->params.window};
  if (test_int(0, 2) == 0) {  // [window, heads * dim], as engines have them
    q->stride_head = row + gap;
    q->stride_row = q->stride_head * num_q_heads;
  }
  q->stride_batch = (row + gap) * p->params.window * num_q_heads;
  q->size_bytes = q->stride_batch * q->batch;
  q->data = host_alloc(q->size_bytes);
  memset((void *)(uintptr_t)q->data, 0xff, (size_t)q->size_bytes);
}

// Rows that the tensor copy engine reads in strides, all sequences of one length: what chunk scores
// are made of in one pass. Else so is one problem in four.
static bool plain_rows;

// A problem of these sizes; the rest is random.
static problem make_problem(int32_t dtype, int32_t query_dtype, int32_t head_dim, int32_t kv_heads,
                            int32_t group, int32_t batch, int32_t kv_len, int32_t window) {
  const bool plain = plain_rows || test_int(0, 3) == 0;
  problem p = {.layout = plain ? (test_int(0, 1) ? ROWS : TOKEN_MAJOR)
                               : (enum layout)test_int(0, LAYOUTS - 1)};
  ckv_default_params(&p.params);
  p.params.window = window;
  p.params.budget = test_int(1, kv_len + 3);
  p.keys = (ckv_kv_view){.struct_size = sizeof p.keys,
                         .dtype = dtype,
                         .batch = batch,
                         .num_kv_heads = kv_heads,
                         .head_dim = head_dim,
                         .kv_len = kv_len};
  p.keys.kv_lens = plain ? NULL : random_lens(batch, kv_len);
  layout_view(&p.keys, p.layout, test_int(0, 3));
  p.keys.data = host_alloc(p.keys.size_bytes);
  memset(p.keys.data, 0xff, (size_t)p.keys.size_bytes);  // NaN where no row is
  query_layout(&p, query_dtype, kv_heads * group);
  const float sizes[] = {1, 2, 4, 0.01f};
  fill_rows(&p, sizes[test_int(0, 3)] / sqrtf((float)head_dim) * 4);
  return p;
}

// Another of the same shape and layout; `other` has plain rows.
static problem problem_like(const problem *other, float key_size) {
  problem p = *other;
  p.keys.data = host_alloc(p.keys.size_bytes);
  memset(p.keys.data, 0xff, (size_t)p.keys.size_bytes);
  char *queries = host_alloc(p.queries.size_bytes);
  memset(queries, 0xff, (size_t)p.queries.size_bytes);
  p.queries.data = queries;
  p.key_norm = p.query_norm = 0;
  fill_rows(&p, key_size);
  return p;
}

static void free_problem(problem *p) {
  free((void *)(uintptr_t)p->keys.kv_lens);
  free((void *)(uintptr_t)p->keys.block_table);
  free((void *)(uintptr_t)p->queries.log_sum_exp);
  free((void *)(uintptr_t)p->queries.data);
  free(p->keys.data);
}

#endif
