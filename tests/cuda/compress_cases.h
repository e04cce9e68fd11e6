// compress on the device: rows are where its indices say, and its indices keep as much attention as
// the CPU's do. Equal indices cannot be asked for: scores differ in their last bits.
#ifndef CKV_CUDA_TEST_COMPRESS_CASES_H
#define CKV_CUDA_TEST_COMPRESS_CASES_H

#include "chunk_cases.h"
#include "compact_cases.h"

#define MAX_LAYERS 40

typedef struct model {
  int32_t num_layers;
  ckv_params params;
  problem problems[MAX_LAYERS];
  ckv_kv_view values[MAX_LAYERS];
  bool has_values[MAX_LAYERS];
  ckv_kept kept[MAX_LAYERS];  // room for the device's
} model;

// One shape for all layers, or now and then another one in between; one array of lengths. `plain`: as
// one pass over the keys takes them, and mostly all layers at once.
static void make_model(model *m, int32_t method, int32_t most_layers, bool plain) {
  m->num_layers = test_int(1, most_layers);
  const int32_t dtype = plain ? test_int(CKV_F16, CKV_BF16) : test_int(CKV_F32, CKV_F8_E4M3);
  const int32_t dim = 32 * test_int(1, 4);
  const int32_t heads = test_int(1, 3), batch = test_int(1, 3);
  // Of plain queries those are read where they are whose windows fill a block of rows, and the last
  // chunk is to end in the window.
  const int32_t window = plain && test_int(0, 3) ? 16 << test_int(0, 1) : test_int(1, 40);
  const int32_t group = (plain && test_int(0, 1) ? 64 / window : 0) + test_int(1, 4);
  const bool alike = plain && test_int(0, 3);
  plain_rows = plain;
  const int32_t n = test_int(0, 3) ? test_int(1, 500) : test_int(1, 2000);
  for (int32_t l = 0; l < m->num_layers; l++) {
    problem *p = &m->problems[l];
    if (l > 0 && alike) {
      *p = problem_like(&m->problems[0], 4 / sqrtf((float)dim));
    } else {
      const int32_t own = plain || test_int(0, 7) ? dtype : test_int(CKV_F32, CKV_F8_E4M3);
      *p = make_problem(own, own == CKV_BF16 ? CKV_BF16 : CKV_F16, dim, heads, group, batch, n,
                        window);
    }
    if (l > 0 && !alike) {  // the engine's one array of lengths
      free((void *)(uintptr_t)p->keys.kv_lens);
      p->keys.kv_lens = m->problems[0].keys.kv_lens;
      p->key_norm = 0;
      fill_rows(p, 4 / sqrtf((float)dim));
    }
    p->params.method = method;
    p->params.layer_reuse = 1;
    ckv_kv_view *v = &m->values[l];
    *v = p->keys;
    v->dtype = test_int(CKV_F32, CKV_F8_E4M3);
    m->has_values[l] = test_int(0, 5) > 0;
    layout_view(v, (enum layout)test_int(0, LAYOUTS - 1), test_int(0, 3));
    v->data = host_alloc(v->size_bytes);
    random_bytes(v->data, v->size_bytes);
  }
  m->params = m->problems[0].params;
  m->params.budget = test_int(1, n + 3);
  m->params.spread = plain ? 1 : random_spread();
  plain_rows = false;
  for (int32_t l = 0; l < m->num_layers; l++) m->problems[l].params.spread = m->params.spread;
  m->params.fill = test_int(0, 1);
  if (test_int(0, 2) == 0) m->params.chunk_size = plain ? 8 * test_int(1, 4) : test_int(1, 300);
  m->params.chunk_reduce = test_int(0, 3) ? CKV_REDUCE_SUM : CKV_REDUCE_MEAN;
  m->params.layer_reuse = test_int(1, 3);
  for (int32_t l = 0; l < m->num_layers; l++) {
    m->kept[l] =
        host_kept(batch, ckv_kept_heads(&m->params, heads), ckv_kept_capacity(&m->params, n));
  }
}

static void free_model(model *m) {
  for (int32_t l = 0; l < m->num_layers; l++) {
    if (l > 0) m->problems[l].keys.kv_lens = NULL;
    free((void *)(uintptr_t)m->values[l].block_table);
    free(m->values[l].data);
    free_kept(&m->kept[l]);
  }
  for (int32_t l = m->num_layers - 1; l >= 0; l--) free_problem(&m->problems[l]);
}

// Attention that an index set keeps, by the reference's scores.
static double attention_kept(const float *row, const int32_t *indices, int32_t len) {
  double sum = 0;
  for (int32_t i = 0; i < len; i++) sum += (double)row[indices[i]];
  return sum;
}

static int descending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x < y) - (x > y);
}

// Chunks whose scores are clearly among the best are kept whole, and of those that are clearly not
// nothing is: two more can be kept in part, or none.
static void compare_kept_chunks(const model *m, int32_t n, const float *row, tolerance bound,
                                const int32_t *indices, int32_t kept, const char *text) {
  const ckv_params *params = &m->params;
  const int32_t c = params->chunk_size, len = n - params->window;
  const int32_t num = len > 0 ? (len + c - 1) / c : 0;
  const int32_t rest = params->budget - params->window;
  const int32_t k = rest < 0 ? 0 : rest / c < num ? rest / c : num;
  if (num == 0) return;
  double *chunks = host_alloc(2 * num * (int64_t)sizeof(double)), *sorted = chunks + num;
  for (int32_t j = 0; j < num; j++) {
    double sum = 0;
    for (int32_t t = j * c; t < len && t < (j + 1) * c; t++) sum += (double)row[t];
    if (params->chunk_reduce == CKV_REDUCE_MEAN) sum /= len - j * c < c ? len - j * c : c;
    sorted[j] = chunks[j] = sum;
  }
  qsort(sorted, (size_t)num, sizeof *sorted, descending);
  const int32_t most = k + (params->fill == CKV_FILL_EXACT ? 2 : 0);
  const double out = k < num ? sorted[k] : -1,
               in = most > 0 ? sorted[most < num ? most - 1 : num - 1] : INFINITY;
  const double slack = 2 * c * bound.absolute;
  int32_t i = 0;
  for (int32_t j = 0; j < num; j++) {
    const int32_t begin = j * c, end = len - begin > c ? begin + c : len;
    while (i < kept && indices[i] < begin) i++;
    int32_t tokens = 0;
    while (i < kept && indices[i] < end) i++, tokens++;
    if (k < num && chunks[j] * (1 - bound.relative) > out * (1 + bound.relative) + slack) {
      CHECK(tokens == end - begin, "%s: chunk %d of the best %d: %d tokens kept", text, j, k,
            tokens);
    }
    if (chunks[j] * (1 + bound.relative) + slack < in * (1 - bound.relative)) {
      CHECK(tokens == 0, "%s: chunk %d, not of the best %d: %d tokens kept", text, j, most, tokens);
    }
  }
  free(chunks);
}

static void compare_attention(const model *m, int32_t l, const char *text) {
  problem *p = (problem *)(uintptr_t)&m->problems[l];
  const ckv_kept *found = &m->kept[l];
  ckv_scores scores = scores_for(p, NULL);
  scores.data = host_alloc(scores.count * (int64_t)sizeof(float));
  ckv_kept want = host_kept(found->batch, found->num_heads, found->capacity);
  if (scores.num_heads > 0) {
    CHECK(ckv_score(reference, &m->params, &p->queries, &p->keys, &scores) == CKV_OK, "%s: %s",
          text, ckv_context_error(reference));
  }
  CHECK(ckv_select(reference, &m->params, &scores, &want) == CKV_OK, "%s: %s", text,
        ckv_context_error(reference));
  const tolerance bound = chunk_tolerance(bound_of(p), 1);
  for (int32_t b = 0; b < want.batch; b++) {
    CHECK(want.lens[b] == found->lens[b], "%s: layer %d, sequence %d: expected %d but found %d",
          text, l, b, want.lens[b], found->lens[b]);
    for (int32_t h = 0; h < want.num_heads && want.lens[b] == found->lens[b]; h++) {
      const int64_t set = (int64_t)b * want.num_heads + h, at = set * want.capacity;
      if (scores.num_heads == 0) {
        CHECK(memcmp(want.indices + at, found->indices + at,
                     sizeof(int32_t) * (size_t)want.lens[b]) == 0,
              "%s: layer %d, sequence %d: other indices", text, l, b);
        continue;
      }
      const float *row = scores.data + set * scores.kv_len;
      const double best = attention_kept(row, want.indices + at, want.lens[b]);
      const double kept = attention_kept(row, found->indices + at, want.lens[b]);
      // Each side's sums may be off by the bound.
      const double least = best * (1 - 2 * bound.relative) - want.lens[b] * bound.absolute;
      CHECK(kept >= least, "%s: layer %d, sequence %d, set %d: expected attention %g but found %g",
            text, l, b, h, best, kept);
      if (m->params.method == CKV_METHOD_CHUNKKV) {
        compare_kept_chunks(m, len_of(&p->keys, b), row, bound, found->indices + at, want.lens[b],
                            text);
      }
    }
  }
  free_kept(&want);
  free(scores.data);
}

static void compare_moved(const ckv_kv_view *host, const ckv_kept *kept, const void *on_device,
                          const char *text) {
  char *want = host_alloc(host->size_bytes);
  memcpy(want, host->data, (size_t)host->size_bytes);
  move_rows(host, host->data, host, want, kept);
  compare_bytes(want, on_device, host->size_bytes, text);
  free(want);
}

// A workspace between the least that does and the best. One byte less than the least is refused.
static void tight_workspace(const model *m, const ckv_layer *layers, ckv_kept *kept,
                            const char *text) {
  int64_t best = 0, least = 0;
  const ckv_params *params = &m->params;
  CHECK(ckv_workspace_size(device, params, layers, m->num_layers, &least) == CKV_OK &&
            ckv_workspace_best(device, params, layers, m->num_layers, &best) == CKV_OK,
        "%s: %s", text, ckv_context_error(device));
  CHECK(4096 <= least && least <= best, "%s: least %lld, best %lld", text, (long long)least,
        (long long)best);
  if (least > 4096) {
    ckv_context_set_workspace(device, device_space(least - 1, 0), least - 1);
    CHECK(finished(ckv_select_layers(device, params, layers, m->num_layers, kept)) ==
              CKV_ERROR_INVALID_ARGUMENT,
          "%s: %lld bytes do, expected %lld", text, (long long)least - 1, (long long)least);
  }
  const int64_t some = least + (int64_t)(test_random() % (uint64_t)(best - least + 1));
  CHECK(ckv_context_set_workspace(device, device_space(some, 0), some) == CKV_OK, "%s: %s", text,
        ckv_context_error(device));
}

// In one call or in two; selecting alone moves nothing, and needs no values.
static ckv_status compress(const model *m, ckv_layer *layers, ckv_kept *kept, const char *text) {
  if (test_int(0, 1)) {
    return finished(ckv_compress(device, &m->params, layers, m->num_layers, kept));
  }
  const ckv_kv_view *values[MAX_LAYERS];
  for (int32_t l = 0; l < m->num_layers; l++) {
    values[l] = layers[l].values;
    layers[l].values = NULL;
  }
  const ckv_status status =
      finished(ckv_select_layers(device, &m->params, layers, m->num_layers, kept));
  for (int32_t l = 0; l < m->num_layers; l++) {
    const ckv_kv_view *keys = &m->problems[l].keys;
    compare_bytes(keys->data, layers[l].keys->data, keys->size_bytes, text);
    layers[l].values = values[l];
  }
  if (status) return status;
  return finished(ckv_compact_layers(device, layers, m->num_layers, kept));
}

static void check_compress(int32_t method, int32_t most_layers, bool plain) {
  static model m;
  make_model(&m, method, most_layers, plain);
  char text[300], shape[200];
  describe_problem(&m.problems[0], shape, sizeof shape);
  snprintf(text, sizeof text, "compress, %d layers, reuse %d, budget %d, fill %d, %s", m.num_layers,
           m.params.layer_reuse, m.params.budget, m.params.fill, shape);

  static ckv_kv_view keys[MAX_LAYERS], values[MAX_LAYERS];
  static ckv_query_view queries[MAX_LAYERS];
  static ckv_layer layers[MAX_LAYERS];
  static ckv_kept kept[MAX_LAYERS];
  device_aligned = plain && test_int(0, 7);
  static const ckv_query_view nothing;  // of a layer that does not select: not looked at
  for (int32_t l = 0; l < m.num_layers; l++) {
    keys[l] = device_kv(&m.problems[l].keys);
    values[l] = device_kv(&m.values[l]);
    values[l].kv_lens = keys[l].kv_lens = keys[0].kv_lens;
    queries[l] = device_queries(&m.problems[l].queries);
    const bool leads = l % m.params.layer_reuse == 0;
    layers[l] = (ckv_layer){sizeof layers[l], 0,
                            leads            ? &queries[l]
                            : test_int(0, 1) ? &nothing
                                             : NULL,
                            &keys[l], m.has_values[l] ? &values[l] : NULL};
    kept[l] = device_kept(&m.kept[l]);
  }
  device_aligned = false;
  random_workspace(&m.params, layers, m.num_layers);
  if (device_kind == CKV_CUDA && test_int(0, 2) == 0) tight_workspace(&m, layers, kept, text);
  const ckv_status status = compress(&m, layers, kept, text);
  CHECK(status == CKV_OK, "%s: %s", text, ckv_context_error(device));
  for (int32_t l = 0; l < m.num_layers && !status; l++) {
    const int32_t leader = l - l % m.params.layer_reuse;
    download_kept(&m.kept[l], &kept[l]);
    if (l == leader) {
      compare_attention(&m, l, text);
    } else {
      compare_kept(&m.kept[leader], &m.kept[l], text);
    }
    compare_moved(&m.problems[l].keys, &m.kept[l], keys[l].data, text);
    if (m.has_values[l]) compare_moved(&m.values[l], &m.kept[l], values[l].data, text);
  }
  device_reset(text);
  free_model(&m);
}

static void test_compress(bool quick) {
  for (int32_t method = 0; method <= CKV_METHOD_CHUNKKV; method++) {  // those that run on CUDA
    const int before = test_failed;
    for (int32_t round = 0; round < (quick ? 4 : 40); round++) {
      check_compress(method, round % 8 == 7 ? MAX_LAYERS : 6, round % 2 != 0);
    }
    printf("compress %s: %d failed\n", ckv_method_name(method), test_failed - before);
  }
}

#endif
