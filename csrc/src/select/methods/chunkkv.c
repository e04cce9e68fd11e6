// chunkkv: neighbouring tokens form chunks; the chunks with the most window attention stay whole.
// Based on ChunkKV (arXiv 2502.00299, section 3.2, algorithm 1).
#include <stddef.h>

#include "../budget.h"
#include "../chunk_scores.h"
#include "../topk.h"
#include "method.h"

// A token's score counts for itself and those after it, a share each. What a model reads off token by
// token gets attention where it begins; with this the chunk that it goes on in stays, too.
static void spread_scores(float *scores, int32_t len, int32_t width) {
  for (int32_t t = len - 1; t >= 0; t--) {
    double sum = 0;
    for (int32_t i = t; i >= 0 && i > t - width; i--) sum += scores[i];
    scores[t] = (float)(sum / width);
  }
}

// Attention of all heads together: one index set serves the layer.
static void finish_summed(const ckv_finish *f) {
  for (int32_t t = 0; t < f->len; t++) {
    double sum = 0;
    for (int32_t h = 0; h < f->num_kv_heads; h++) sum += f->mass[(int64_t)h * f->stride + t];
    f->scores[t] = (float)sum;
  }
  if (f->params->spread > 1) spread_scores(f->scores, f->len, f->params->spread);
}

// A run of a chunk that is kept in part, to use up the budget.
typedef struct {
  int32_t begin, length;
} run;

// Whole chunks leave over (budget - window) % c tokens, and c minus its length more if the short
// last chunk was chosen. Either way two further chunks hold enough.
#define MAX_RUNS 2

// The next best chunks after `rank`, each in full or, the last, its best run.
static int32_t left_over_runs(const ckv_choice *choice, const float *chunks, int32_t num_chunks,
                              int32_t len, uint64_t rank, int32_t rest, run runs[MAX_RUNS]) {
  const int32_t c = choice->params->chunk_size;
  int32_t num_runs = 0;
  while (rest > 0 && num_runs < MAX_RUNS) {
    rank = ckv_next_rank(chunks, num_chunks, rank);
    if (rank == UINT64_MAX) break;
    const int32_t begin = (int32_t)(rank & 0xffffffffu) * c;
    const int32_t end = len - begin > c ? begin + c : len;
    const int32_t length = rest < end - begin ? rest : end - begin;
    runs[num_runs++] = (run){ckv_best_run(choice->scores, begin, end, length), length};
    rest -= length;
  }
  return num_runs;
}

static int32_t select_chunks(const ckv_choice *choice) {
  const ckv_params *params = choice->params;
  const int32_t c = params->chunk_size;
  const ckv_budget budget = ckv_budget_split(params, choice->kv_len);
  const int32_t num_chunks = ckv_num_chunks(budget.len, c);
  uint64_t *ranks = choice->scratch;
  float *chunks = (float *)(choice->scratch + num_chunks);
  ckv_reduce_chunks(choice->scores, budget.len, c, params->chunk_reduce, chunks);

  const int32_t k = budget.rest / c < num_chunks ? budget.rest / c : num_chunks;
  const uint64_t last = k > 0 ? ckv_topk_threshold(chunks, num_chunks, k, ranks) : CKV_RANK_NONE;
  int32_t chosen = 0;
  for (int32_t j = 0; j < num_chunks; j++) {
    if (ckv_rank(chunks[j], j) <= last) chosen += budget.len - j * c > c ? c : budget.len - j * c;
  }
  run runs[MAX_RUNS];
  int32_t num_runs = 0;
  if (params->fill == CKV_FILL_EXACT) {
    num_runs =
        left_over_runs(choice, chunks, num_chunks, budget.len, last, budget.rest - chosen, runs);
  }

  int32_t count = 0;
  for (int32_t j = 0; j < num_chunks; j++) {
    const int32_t begin = j * c;
    const int32_t end = budget.len - begin > c ? begin + c : budget.len;
    if (ckv_rank(chunks[j], j) <= last) {
      count = ckv_keep_range(choice->indices, count, begin, end);
      continue;
    }
    for (int32_t r = 0; r < num_runs; r++) {
      if (runs[r].begin < begin || runs[r].begin >= end) continue;
      count = ckv_keep_range(choice->indices, count, runs[r].begin, runs[r].begin + runs[r].length);
    }
  }
  return ckv_keep_range(choice->indices, count, budget.newest, choice->kv_len);
}

static int64_t scratch_per_chunk(const ckv_params *params, int32_t n) {
  const int64_t chunks = ckv_num_chunks(n, params->chunk_size);
  return chunks + (chunks + 1) / 2;  // ranks, then chunk scores at half their size
}

const ckv_method_ops ckv_method_chunkkv = {
    .score_heads = CKV_HEADS_SHARED,
    .kept_heads = CKV_HEADS_SHARED,
    .finish = finish_summed,
    .select = select_chunks,
    .scratch = scratch_per_chunk,
};
