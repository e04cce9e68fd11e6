// Random scoring problems of every dtype and layout, and their float64 solution.
#ifndef CKV_SCORE_CASE_H
#define CKV_SCORE_CASE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "chunkkv.h"
#include "score_encode.h"
#include "test.h"

enum layout { ROWS, GAPS, TOKEN_MAJOR, PAGES, CELLS, LAYOUTS };
enum values { NORMAL, LARGE, EQUAL, ONE_HOT, TINY, VALUES };

typedef struct score_case {
  int32_t batch, kv_heads, group, window, head_dim, kv_len;
  int32_t key_dtype, query_dtype, layout, values;
  int32_t *kv_lens;
  double *key;    // decoded: [batch][kv_heads][kv_len][head_dim]
  double *query;  // decoded: [batch][q_heads][window][head_dim]
  char *key_data, *query_data;
  int32_t *table;
  float *lse;
  ckv_params params;
  ckv_kv_view keys;
  ckv_query_view queries;
  double *mass;    // the solution, [batch][kv_heads][kv_len]
  double largest;  // of scale * sum |q k|, and of |log_sum_exp|
} score_case;

static inline void *case_alloc(size_t bytes) {
  void *memory = malloc(bytes ? bytes : 1);
  if (!memory) exit(3);
  return memory;
}

// Uniform in [-1, 1).
static inline double case_noise(void) { return 2.0 * (double)test_float() - 1.0; }

static inline double *case_key(const score_case *c, int32_t b, int32_t g, int32_t t) {
  return c->key + (((int64_t)b * c->kv_heads + g) * c->kv_len + t) * c->head_dim;
}

static inline double *case_query(const score_case *c, int32_t b, int32_t h, int32_t i) {
  return c->query + (((int64_t)b * c->kv_heads * c->group + h) * c->window + i) * c->head_dim;
}

static inline char *case_key_row(const score_case *c, int32_t b, int32_t g, int32_t t) {
  const ckv_kv_view *k = &c->keys;
  if (k->block_size == 0) {
    return c->key_data + b * k->stride_batch + g * k->stride_head + t * k->stride_token;
  }
  return c->key_data + k->block_table[b * k->max_blocks + t / k->block_size] * k->stride_block +
         t % k->block_size * k->stride_token + g * k->stride_head;
}

static inline char *case_query_row(const score_case *c, int32_t b, int32_t h, int32_t i) {
  const ckv_query_view *q = &c->queries;
  return c->query_data + b * q->stride_batch + h * q->stride_head + i * q->stride_row;
}

// Encodes what c->key and c->query hold; call again after changing them.
static inline void case_encode(score_case *c) {
  for (int32_t b = 0; b < c->batch; b++) {
    for (int32_t g = 0; g < c->kv_heads; g++) {
      for (int32_t t = 0; t < c->kv_lens[b]; t++) {
        encode_row(c->key_dtype, case_key(c, b, g, t), c->head_dim, case_key_row(c, b, g, t));
      }
    }
    for (int32_t h = 0; h < c->kv_heads * c->group; h++) {
      for (int32_t i = 0; i < c->window; i++) {
        encode_row(c->query_dtype, case_query(c, b, h, i), c->head_dim, case_query_row(c, b, h, i));
      }
    }
  }
}

static inline void shuffle(int32_t *values, int32_t count) {
  for (int32_t i = count - 1; i > 0; i--) {
    const int32_t other = test_int(0, i), value = values[i];
    values[i] = values[other];
    values[other] = value;
  }
}

// Memory that is exactly as large as the views say, so that a sanitizer sees a read outside.
static inline void case_layout(score_case *c) {
  const int64_t row = ckv_row_bytes(c->key_dtype, c->head_dim);
  const int64_t gap = c->layout == GAPS ? 3 : 0;
  ckv_kv_view *k = &c->keys;
  *k = (ckv_kv_view){.struct_size = sizeof *k,
                     .dtype = c->key_dtype,
                     .batch = c->batch,
                     .num_kv_heads = c->kv_heads,
                     .head_dim = c->head_dim,
                     .kv_len = c->kv_len,
                     .kv_lens = c->kv_lens};
  k->stride_token = row + gap;
  k->stride_head = k->stride_token * c->kv_len + gap;
  k->stride_batch = k->stride_head * c->kv_heads;
  if (c->layout == TOKEN_MAJOR) {
    k->stride_head = row;
    k->stride_token = row * c->kv_heads;
    k->stride_batch = k->stride_token * c->kv_len;
  }
  int64_t bytes = c->batch * k->stride_batch;
  if (c->layout >= PAGES) {
    k->block_size = c->layout == CELLS ? 1 : test_int(2, 40);
    k->max_blocks = (c->kv_len + k->block_size - 1) / k->block_size;
    k->num_blocks = c->batch * k->max_blocks + 3;
    c->table = case_alloc(sizeof(int32_t) * (size_t)k->num_blocks);
    for (int32_t i = 0; i < k->num_blocks; i++) c->table[i] = i;
    shuffle(c->table, k->num_blocks);
    k->block_table = c->table;
    k->stride_head = row;
    k->stride_token = row * c->kv_heads;
    k->stride_block = k->stride_token * k->block_size;
    bytes = k->stride_block * k->num_blocks;
  }
  k->size_bytes = bytes;
  c->key_data = case_alloc((size_t)bytes);
  memset(c->key_data, 0xff, (size_t)bytes);  // NaN in the float types, where no row is
  k->data = c->key_data;

  const int64_t query_row = ckv_row_bytes(c->query_dtype, c->head_dim) + 2 * gap;
  const int32_t heads = c->kv_heads * c->group;
  c->queries = (ckv_query_view){.struct_size = sizeof c->queries,
                                .dtype = c->query_dtype,
                                .batch = c->batch,
                                .num_q_heads = heads,
                                .window = c->window,
                                .head_dim = c->head_dim,
                                .size_bytes = query_row * c->window * heads * c->batch,
                                .stride_batch = query_row * c->window * heads,
                                .stride_head = query_row * c->window,
                                .stride_row = query_row};
  c->query_data = case_alloc((size_t)c->queries.size_bytes);
  c->queries.data = c->query_data;
}

// Fills c->key and c->query. A query row has length around 1, a key row around `size`.
static inline void case_values(score_case *c) {
  const double size = c->values == LARGE ? 1e4 : c->values == TINY ? 1e-39 : 8.0;
  const double root = sqrt((double)c->head_dim);
  const int64_t keys = (int64_t)c->batch * c->kv_heads * c->kv_len * c->head_dim;
  const int64_t queries = (int64_t)c->batch * c->kv_heads * c->group * c->window * c->head_dim;
  c->key = case_alloc(sizeof(double) * (size_t)keys);
  c->query = case_alloc(sizeof(double) * (size_t)queries);
  for (int64_t i = 0; i < keys; i++) {
    c->key[i] = c->values == EQUAL ? 0.5 : case_noise() * size / root * 2;
    if (c->values == ONE_HOT) c->key[i] = 0;
    if (c->key_dtype == CKV_F16) c->key[i] = fmax(-6e4, fmin(6e4, c->key[i]));
    if (c->key_dtype == CKV_F8_E4M3) c->key[i] = fmax(-400.0, fmin(400.0, c->key[i]));
  }
  for (int64_t i = 0; i < queries; i++) c->query[i] = case_noise() / root * 2 * root;
  for (int32_t p = 0; p < c->batch * c->kv_heads && c->values == ONE_HOT && c->kv_len > 0; p++) {
    double *key = case_key(c, p / c->kv_heads, p % c->kv_heads, test_int(0, c->kv_len - 1));
    for (int32_t j = 0; j < c->head_dim; j++) key[j] = 200.0 * case_noise();
  }
}

// The definition, one row at a time.
static inline void case_solve(score_case *c) {
  const double scale =
      c->params.scale != 0 ? (double)c->params.scale : 1 / sqrt((double)c->head_dim);
  const double cap = (double)c->params.logit_softcap;
  const int32_t heads = c->kv_heads * c->group;
  double *logits = case_alloc(sizeof(double) * (size_t)c->kv_len);
  c->largest = 0;
  memset(c->mass, 0, sizeof(double) * (size_t)(c->batch * c->kv_heads) * (size_t)c->kv_len);
  for (int64_t row = 0; row < (int64_t)c->batch * heads * c->window; row++) {
    const int32_t i = (int32_t)(row % c->window), h = (int32_t)(row / c->window % heads);
    const int32_t b = (int32_t)(row / c->window / heads), n = c->kv_lens[b];
    const int32_t visible = n - c->window + i + 1;
    if (n <= c->window) continue;
    double max = -INFINITY, sum = 0;
    for (int32_t t = 0; t < visible; t++) {
      const double *k = case_key(c, b, h / c->group, t), *q = case_query(c, b, h, i);
      double dot = 0, size = 0;
      for (int32_t j = 0; j < c->head_dim; j++) {
        dot += q[j] * k[j];
        if (isfinite(q[j] * k[j])) size += fabs(q[j] * k[j]);
      }
      logits[t] = cap > 0 ? cap * tanh(dot * scale / cap) : dot * scale;
      c->largest = fmax(c->largest, size * scale);
      max = fmax(max, logits[t]);
    }
    for (int32_t t = 0; t < visible; t++) sum += exp(logits[t] - max);
    double norm = max + log(sum);
    if (c->lse) {
      if (!c->queries.log_sum_exp) c->lse[row] = (float)norm;
      norm = (double)c->lse[row];
      c->largest = fmax(c->largest, fabs(norm));
    }
    double *mass = c->mass + ((int64_t)b * c->kv_heads + h / c->group) * c->kv_len;
    for (int32_t t = 0; t < n - c->window; t++) mass[t] += exp(logits[t] - norm);
  }
  free(logits);
}

static inline void case_free(score_case *c) {
  free(c->kv_lens);
  free(c->key);
  free(c->query);
  free(c->key_data);
  free(c->query_data);
  free(c->table);
  free(c->lse);
  free(c->mass);
}

#endif
