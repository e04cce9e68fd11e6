// select on the device: on the same scores, the CPU's indices exactly.
#ifndef CKV_CUDA_TEST_SELECT_CASES_H
#define CKV_CUDA_TEST_SELECT_CASES_H

#include "layouts.h"

// Ties of all kinds: uniform, few values, all equal, both zeros and extremes, softmax-like.
static float random_token_score(int32_t kind) {
  static const float SPECIAL[] = {0.0f, -0.0f, 1e-38f, -1.5f, 3e38f, 1e-45f};
  switch (kind) {
    case 0:
      return test_float();
    case 1:
      return (float)test_int(0, 3);
    case 2:
      return 0.125f;
    case 3:
      return SPECIAL[test_int(0, 5)];
    default:
      return (float)(1.0 / (1 + 1e6 * (double)test_float()));
  }
}

typedef struct selection {
  ckv_params params;
  ckv_scores scores;
  int32_t kind;
} selection;

static selection random_selection(int32_t method, int32_t longest) {
  selection s = {.kind = test_int(0, 4)};
  ckv_params *p = &s.params;
  ckv_default_params(p);
  p->method = method;
  p->window = test_int(0, 1) ? 32 : test_int(1, 64);
  const int32_t lengths[] = {1, p->window, p->window + 1, 1000, 4097, longest};
  const int32_t pick = test_int(0, 9);
  const int32_t n = pick < 6 ? lengths[pick] : test_int(1, 3000);
  const int32_t chunks[] = {1, 3, 10, 20, 64, n + 5};
  p->chunk_size = test_int(0, 7) ? chunks[test_int(0, 5)] : test_int(1, 100);
  p->chunk_reduce = test_int(0, 2);
  p->fill = test_int(0, 1);
  const int32_t budgets[] = {1, p->window - 1, p->window, n, n + 7, n / 10, n / 2 | 1, n - 1};
  p->budget = test_int(0, 2) ? budgets[test_int(0, 7)] : test_int(1, n);
  if (p->budget < 1) p->budget = 1;
  p->num_sinks = test_int(0, 6);
  const int32_t batch = test_int(0, 1) ? 1 : test_int(2, 4);
  const int32_t heads = ckv_score_heads(p, n > 20000 ? 2 : test_int(1, 8));
  s.scores = (ckv_scores){.struct_size = sizeof s.scores,
                          .batch = batch,
                          .num_heads = heads,
                          .kv_len = n,
                          .kv_lens = random_lens(batch, n),
                          .count = (int64_t)batch * heads * n};
  s.scores.data = host_alloc(s.scores.count * (int64_t)sizeof(float));
  for (int64_t i = 0; i < s.scores.count; i++) {
    const int32_t b = (int32_t)(i / n / heads);
    const int32_t len = s.scores.kv_lens ? s.scores.kv_lens[b] : n;
    // Scores that nobody may look at.
    s.scores.data[i] = i % n < len - p->window ? random_token_score(s.kind) : NAN;
  }
  return s;
}

static void check_chunk_scores(const selection *s, const ckv_scores *on_device, const char *text) {
  const int32_t scored =
      s->scores.kv_len > s->params.window ? s->scores.kv_len - s->params.window : 0;
  const int64_t chunks = ((int64_t)scored + s->params.chunk_size - 1) / s->params.chunk_size;
  const int64_t count = s->scores.batch * chunks, bytes = count * (int64_t)sizeof(float);
  float *want = host_alloc(bytes), *found = host_alloc(bytes);
  CHECK(ckv_chunk_scores(reference, &s->params, &s->scores, want, count) == CKV_OK, "%s: %s", text,
        ckv_context_error(reference));
  float *chunk_scores = device_space(bytes, 0);
  const ckv_status status =
      finished(ckv_chunk_scores(device, &s->params, on_device, chunk_scores, count));
  CHECK(status == CKV_OK, "%s: chunk scores: %s", text, ckv_context_error(device));
  download(found, chunk_scores, bytes);
  int64_t other = 0;
  while (other < count && want[other] == found[other]) other++;
  CHECK(other == count, "%s: chunk score %lld: expected %g but found %g", text, (long long)other,
        (double)want[other], (double)found[other]);
  free(want);
  free(found);
}

static ckv_kept host_kept(int32_t batch, int32_t heads, int32_t capacity) {
  ckv_kept kept = {sizeof kept, batch, heads, capacity, NULL, NULL};
  const int64_t bytes = kept_entries(&kept) * (int64_t)sizeof(int32_t);
  kept.indices = host_alloc(bytes);
  kept.lens = host_alloc(batch * (int64_t)sizeof(int32_t));
  memset(kept.indices, 0xff, (size_t)bytes);
  memset(kept.lens, 0xff, sizeof(int32_t) * (size_t)batch);
  return kept;
}

static void free_kept(const ckv_kept *kept) {
  free(kept->indices);
  free(kept->lens);
}

static void compare_kept(const ckv_kept *want, const ckv_kept *found, const char *text) {
  for (int32_t b = 0; b < want->batch; b++) {
    CHECK(want->lens[b] == found->lens[b], "%s: sequence %d: expected %d indices but found %d",
          text, b, want->lens[b], found->lens[b]);
    for (int32_t h = 0; h < want->num_heads && want->lens[b] == found->lens[b]; h++) {
      const int64_t set = ((int64_t)b * want->num_heads + h) * want->capacity;
      int32_t i = 0;
      while (i < want->lens[b] && want->indices[set + i] == found->indices[set + i]) i++;
      CHECK(i == want->lens[b], "%s: sequence %d, set %d, index %d: expected %d but found %d", text,
            b, h, i, want->indices[set + i], found->indices[set + i]);
    }
  }
}

static void check_selection(int32_t method, int32_t longest) {
  selection s = random_selection(method, longest);
  const ckv_params *p = &s.params;
  char text[256];
  snprintf(text, sizeof text,
           "%s, n %d, batch %d%s, heads %d, window %d, chunk %d, reduce %d, fill %d, budget %d, "
           "scores %d",
           ckv_method_name(method), s.scores.kv_len, s.scores.batch,
           s.scores.kv_lens ? " ragged" : "", s.scores.num_heads, p->window, p->chunk_size,
           p->chunk_reduce, p->fill, p->budget, s.kind);
  const int32_t heads = ckv_kept_heads(p, s.scores.num_heads);
  const int32_t capacity = ckv_kept_capacity(p, s.scores.kv_len) + test_int(0, 1) * 5;
  const ckv_kept want = host_kept(s.scores.batch, heads, capacity);
  const ckv_kept found = host_kept(s.scores.batch, heads, capacity);
  ckv_kept out = want;
  CHECK(ckv_select(reference, p, &s.scores, &out) == CKV_OK, "%s: %s", text,
        ckv_context_error(reference));

  ckv_scores scores = s.scores;
  scores.data = device_copy(s.scores.data, s.scores.count * (int64_t)sizeof(float), 0);
  scores.kv_lens = device_copy(s.scores.kv_lens, s.scores.batch * (int64_t)sizeof(int32_t), 0);
  ckv_kept kept = device_kept(&found);
  const ckv_status status = finished(ckv_select(device, p, &scores, &kept));
  CHECK(status == CKV_OK, "%s: %s", text, ckv_context_error(device));
  download_kept(&found, &kept);
  compare_kept(&want, &found, text);
  if (method == CKV_METHOD_CHUNKKV) check_chunk_scores(&s, &scores, text);
  device_reset(text);
  free_kept(&want);
  free_kept(&found);
  free(s.scores.data);
  free((void *)(uintptr_t)s.scores.kv_lens);
}

static void test_select(bool quick) {
  for (int32_t method = 0; method <= CKV_METHOD_CHUNKKV; method++) {  // those that run on CUDA
    const int before = test_failed;
    const bool scored = method >= CKV_METHOD_SNAPKV;
    for (int32_t round = 0; round < (quick ? 20 : scored ? 400 : 40); round++) {
      check_selection(method, quick ? 9001 : 131072);
    }
    printf("select %s: %d failed\n", ckv_method_name(method), test_failed - before);
  }
}

#endif
