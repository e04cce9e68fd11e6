#include "serial.h"

#include <math.h>
#include <string.h>

#include "../dtype.h"
#include "../kv_view.h"
#include "fault.h"

typedef struct job {
  const ckv_query_view *queries;
  const ckv_kv_view *keys;
  float *mass;
  char *scratch;  // per thread
  size_t thread_bytes;
  double scale;
  double softcap;
  int32_t group;
  bool all_tokens;
  ckv_score_fault fault;
} job;

// One (sequence, kv head) problem. Rows run over (query head of the group, window row).
typedef struct problem {
  double *queries;  // [head_dim][rows], scaled: lanes over rows
  double *key;      // [head_dim]
  double *logits;   // [rows]
  double *row_max;  // [rows]
  double *row_sum;  // [rows]
  float *row;       // [head_dim]
  int32_t rows;
  int32_t window;  // rows of one query head
} problem;

static size_t problem_bytes(int32_t rows, int32_t head_dim) {
  const size_t r = (size_t)rows;
  const size_t d = (size_t)head_dim;
  const size_t bytes = (r * d + d + 3 * r) * sizeof(double) + d * sizeof(float);
  return (bytes + 63) / 64 * 64;
}

static problem problem_at(char *scratch, int32_t rows, int32_t window, int32_t head_dim) {
  problem p = {.rows = rows, .window = window};
  p.queries = (double *)(void *)scratch;
  p.key = p.queries + (size_t)rows * (size_t)head_dim;
  p.logits = p.key + head_dim;
  p.row_max = p.logits + rows;
  p.row_sum = p.row_max + rows;
  p.row = (float *)(void *)(p.row_sum + rows);
  return p;
}

static void load_queries(const job *j, const problem *p, int32_t b, int32_t g) {
  const int32_t head_dim = j->queries->head_dim;
  for (int32_t r = 0; r < p->rows; r++) {
    const int32_t head = g * j->group + r / p->window;
    const int32_t row = j->queries->window - p->window + r % p->window;
    ckv_row_to_f32(j->queries->dtype, ckv_query_row(j->queries, b, head, row), head_dim, p->row);
    for (int32_t k = 0; k < head_dim; k++) {
      p->queries[(int64_t)k * p->rows + r] = (double)p->row[k] * j->scale;
    }
  }
}

static void compute_logits(const job *j, const problem *p, int32_t b, int32_t g, int32_t t) {
  const int32_t head_dim = j->keys->head_dim;
  ckv_row_to_f32(j->keys->dtype, ckv_row(j->keys, b, g, t), head_dim, p->row);
  for (int32_t r = 0; r < p->rows; r++) p->logits[r] = 0;
  for (int32_t k = 0; k < head_dim; k++) {
    const double key = (double)p->row[k];
    const double *queries = p->queries + (int64_t)k * p->rows;
    for (int32_t r = 0; r < p->rows; r++) p->logits[r] += queries[r] * key;
  }
  if (j->softcap > 0) {
    for (int32_t r = 0; r < p->rows; r++)
      p->logits[r] = j->softcap * tanh(p->logits[r] / j->softcap);
  }
}

// Row maxima and sums of exp(logit - max) over the keys that each row sees.
static void normalise_rows(job *j, const problem *p, int32_t b, int32_t g) {
  const int32_t kv_len = ckv_kv_len(j->keys, b);
  for (int32_t r = 0; r < p->rows; r++) {
    p->row_max[r] = -INFINITY;
    p->row_sum[r] = 0;
  }
  for (int32_t t = 0; t < kv_len; t++) {
    compute_logits(j, p, b, g, t);
    for (int32_t r = 0; r < p->rows; r++) {
      const double s = p->logits[r];
      if (t > kv_len - p->window + r % p->window || s == -INFINITY) continue;
      if (!(s < INFINITY)) {  // NaN or +inf
        p->row_sum[r] = NAN;
      } else if (s > p->row_max[r]) {
        p->row_sum[r] = p->row_sum[r] * exp(p->row_max[r] - s) + 1;
        p->row_max[r] = s;
      } else {
        p->row_sum[r] += exp(s - p->row_max[r]);
      }
    }
  }
  for (int32_t r = 0; r < p->rows; r++) {
    if (p->row_sum[r] > 0) continue;
    ckv_score_fault_report(&j->fault, j->queries, b, g * j->group + r / p->window,
                           j->queries->window - p->window + r % p->window,
                           p->row_sum[r] == 0 ? CKV_FAULT_ALL_MASKED : CKV_FAULT_NOT_FINITE);
  }
}

// The caller's log-sum-exp instead of a pass over the keys.
static void take_row_norms(job *j, const problem *p, int32_t b, int32_t g) {
  for (int32_t r = 0; r < p->rows; r++) {
    const int32_t head = g * j->group + r / p->window;
    const int32_t row = j->queries->window - p->window + r % p->window;
    const int64_t at = ((int64_t)b * j->queries->num_q_heads + head) * j->queries->window + row;
    p->row_max[r] = (double)j->queries->log_sum_exp[at];
    p->row_sum[r] = 1;
    if (!isfinite(p->row_max[r])) {
      ckv_score_fault_report(&j->fault, j->queries, b, head, row, CKV_FAULT_NOT_FINITE);
    }
  }
}

static void sum_mass(job *j, const problem *p, int32_t b, int32_t g, float *mass) {
  const int32_t seen_by_all = ckv_kv_len(j->keys, b) - p->window;
  const int32_t scored = j->all_tokens ? ckv_kv_len(j->keys, b) : seen_by_all;
  for (int32_t t = 0; t < scored; t++) {
    compute_logits(j, p, b, g, t);
    double sum = 0;
    for (int32_t r = 0; r < p->rows; r++) {
      const double s = p->logits[r];
      if (t > seen_by_all + r % p->window) continue;
      if (!(s < INFINITY)) {
        ckv_score_fault_report(&j->fault, j->queries, b, g * j->group + r / p->window,
                               j->queries->window - p->window + r % p->window,
                               CKV_FAULT_NOT_FINITE);
      }
      sum += exp(s - p->row_max[r]) / p->row_sum[r];
    }
    mass[t] = (float)sum;
  }
}

static void score_head(void *arg, int64_t index, int32_t thread) {
  job *j = arg;
  const int32_t num_kv_heads = j->keys->num_kv_heads;
  const int32_t b = (int32_t)(index / num_kv_heads);
  const int32_t g = (int32_t)(index % num_kv_heads);
  const int32_t kv_len = ckv_kv_len(j->keys, b);
  const int32_t window = j->queries->window < kv_len ? j->queries->window : kv_len;
  float *mass = j->mass + index * j->keys->kv_len;
  memset(mass, 0, (size_t)j->keys->kv_len * sizeof *mass);
  if (kv_len <= window && !(j->all_tokens && kv_len > 0)) return;  // nothing to score
  const problem p = problem_at(j->scratch + (size_t)thread * j->thread_bytes, j->group * window,
                               window, j->keys->head_dim);
  load_queries(j, &p, b, g);
  if (j->queries->log_sum_exp) {
    take_row_norms(j, &p, b, g);
  } else {
    normalise_rows(j, &p, b, g);
  }
  sum_mass(j, &p, b, g, mass);
}

ckv_status ckv_score_mass_serial(ckv_context *ctx, const ckv_params *params,
                                 const ckv_query_view *queries, const ckv_kv_view *keys,
                                 bool all_tokens, float *mass) {
  job j = {.queries = queries, .keys = keys, .mass = mass, .all_tokens = all_tokens};
  j.group = queries->num_q_heads / keys->num_kv_heads;
  j.scale = params->scale != 0 ? (double)params->scale : 1 / sqrt((double)keys->head_dim);
  j.softcap = (double)params->logit_softcap;
  j.thread_bytes = problem_bytes(j.group * queries->window, keys->head_dim);
  j.scratch = ckv_scratch_get(ctx, CKV_SCRATCH_SCORE,
                              j.thread_bytes * (size_t)ckv_thread_pool_size(ctx->pool));
  if (!j.scratch) return CKV_ERROR_OUT_OF_MEMORY;
  atomic_init(&j.fault, CKV_SCORE_NO_FAULT);
  ckv_parallel_for(ctx->pool, (int64_t)keys->batch * keys->num_kv_heads, score_head, &j);
  return ckv_score_fault_status(ctx, queries, atomic_load(&j.fault));
}
