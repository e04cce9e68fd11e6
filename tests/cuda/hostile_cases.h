// Memory that lies: whatever kernels find is a status at the end, and no row has moved.
#ifndef CKV_CUDA_TEST_HOSTILE_CASES_H
#define CKV_CUDA_TEST_HOSTILE_CASES_H

#include "compress_cases.h"

// Score, select and compact, one queued after the other as an engine does.
static ckv_status run_stages(const problem *p, const ckv_query_view *queries,
                             const ckv_kv_view *keys) {
  ckv_scores scores = scores_for(p, NULL);
  scores.data = device_space(scores.count * (int64_t)sizeof(float), 0);
  scores.kv_lens = keys->kv_lens;
  const ckv_kept shape = {sizeof shape,
                          p->keys.batch,
                          ckv_kept_heads(&p->params, p->keys.num_kv_heads),
                          ckv_kept_capacity(&p->params, p->keys.kv_len),
                          NULL,
                          NULL};
  ckv_kept kept = device_kept(&shape);
  ckv_status status = ckv_score(device, &p->params, queries, keys, &scores);
  if (!status) status = ckv_select(device, &p->params, &scores, &kept);
  if (!status) status = ckv_compact(device, keys, NULL, &kept);
  return finished(status);
}

static ckv_status run_compress(const problem *p, const ckv_query_view *queries,
                               const ckv_kv_view *keys) {
  const ckv_kept shape = {sizeof shape,
                          p->keys.batch,
                          ckv_kept_heads(&p->params, p->keys.num_kv_heads),
                          ckv_kept_capacity(&p->params, p->keys.kv_len),
                          NULL,
                          NULL};
  ckv_kept kept = device_kept(&shape);
  const ckv_layer layer = {sizeof layer, 0, queries, keys, NULL};
  if (test_int(0, 1)) return finished(ckv_compress(device, &p->params, &layer, 1, &kept));
  // In two calls without a finish between them.
  ckv_status status = ckv_select_layers(device, &p->params, &layer, 1, &kept);
  if (!status) status = ckv_compact_layers(device, &layer, 1, &kept);
  return finished(status);
}

static problem hostile_problem(int32_t dtype) {
  const int32_t window = test_int(1, 40);
  problem p = make_problem(dtype, dtype == CKV_BF16 ? CKV_BF16 : CKV_F16, 64, test_int(1, 3),
                           test_int(1, 4), test_int(1, 2), window + test_int(20, 700), window);
  if (test_int(0, 1)) p.params.method = CKV_METHOD_SNAPKV;
  p.params.budget = 1 + p.keys.kv_len / 3;
  return p;
}

static int32_t scored_sequence(const problem *p) {
  int32_t b = 0;
  while (len_of(&p->keys, b) < p->keys.kv_len) b++;
  return b;
}

static void expect_of(ckv_status (*run)(const problem *, const ckv_query_view *,
                                        const ckv_kv_view *),
                      const problem *p, ckv_status expected, const char *what) {
  char text[300], shape[200];
  describe_problem(p, shape, sizeof shape);
  snprintf(text, sizeof text, "%s, %s, %s", what, run == run_stages ? "stages" : "compress", shape);
  const ckv_kv_view keys = device_kv(&p->keys);
  const ckv_query_view queries = device_queries(&p->queries);
  const ckv_status status = run(p, &queries, &keys);
  CHECK(status == expected, "%s: expected status %d but found %d: %s", text, expected, status,
        ckv_context_error(device));
  CHECK(ckv_context_error(device)[0] || !status, "%s: no words", text);
  compare_bytes(p->keys.data, keys.data, p->keys.size_bytes, text);
  CHECK(ckv_context_finish(device) == CKV_OK, "%s: said once only", text);
  device_reset(text);
}

static void expect_found(const problem *p, ckv_status expected, const char *what) {
  expect_of(run_stages, p, expected, what);
  expect_of(run_compress, p, expected, what);
}

// Every key has an element of -inf that every query multiplies by 1: no row sees any token.
static void nothing_seen(int32_t dtype) {
  problem p = hostile_problem(dtype);
  const uint32_t infinity = dtype == CKV_F32 ? 0xff800000 : dtype == CKV_F16 ? 0xfc00 : 0xff80;
  for (int64_t r = 0; r < (int64_t)p.keys.batch * p.keys.num_kv_heads; r++) {
    const int32_t b = (int32_t)(r / p.keys.num_kv_heads), g = (int32_t)(r % p.keys.num_kv_heads);
    for (int32_t t = 0; t < len_of(&p.keys, b); t++) {
      memcpy(key_row(&p, b, g, t), &infinity, (size_t)element_bytes(dtype));
    }
  }
  const ckv_query_view *q = &p.queries;
  for (int64_t r = 0; r < (int64_t)q->batch * q->num_q_heads * q->window; r++) {
    encode_element(q->dtype, 1,
                   query_row(&p, (int32_t)(r / q->window / q->num_q_heads),
                             (int32_t)(r / q->window % q->num_q_heads), (int32_t)(r % q->window)));
  }
  expect_found(&p, CKV_ERROR_NUMERIC, "keys of -inf");
  free_problem(&p);
}

static void nan_in_rows(int32_t dtype) {
  problem p = hostile_problem(dtype);
  const int32_t b = scored_sequence(&p), n = p.keys.kv_len;
  static const unsigned char NANS[] = {0xff, 0xff, 0xff, 0xff};  // in every float type
  char *row = key_row(&p, b, test_int(0, p.keys.num_kv_heads - 1), test_int(0, n - 1));
  // Of blocks the scale is a float; 0xff in q4_0 and q8_0 is an f16 NaN.
  const bool blocks = dtype == CKV_Q8_0 || dtype == CKV_Q4_0;
  const int64_t size = blocks ? 2 : element_bytes(dtype);
  memcpy(row + (blocks ? 0 : size * test_int(0, 63)), NANS, (size_t)size);
  expect_found(&p, CKV_ERROR_NUMERIC, "NaN in a key");
  free_problem(&p);

  p = hostile_problem(dtype);
  row = query_row(&p, scored_sequence(&p), test_int(0, p.queries.num_q_heads - 1),
                  test_int(0, p.params.window - 1));
  memcpy(row + element_bytes(p.queries.dtype) * test_int(0, 63), NANS,
         (size_t)element_bytes(p.queries.dtype));
  expect_found(&p, CKV_ERROR_NUMERIC, "NaN in a query");
  free_problem(&p);
}

static void bad_block_table(void) {
  problem p = hostile_problem(CKV_F16);
  while (p.keys.block_size == 0) {
    free_problem(&p);
    p = hostile_problem(CKV_F16);
  }
  char text[200];
  describe_problem(&p, text, sizeof text);
  const int32_t b = scored_sequence(&p);
  const int32_t blocks = (p.keys.kv_len + p.keys.block_size - 1) / p.keys.block_size;
  const int64_t entry = (int64_t)b * p.keys.max_blocks + test_int(0, blocks - 1);
  const int32_t outside[] = {-1, p.keys.num_blocks, INT32_MAX, INT32_MIN};
  const int32_t bad = outside[test_int(0, 3)];
  const ckv_kv_view keys = device_kv(&p.keys);
  const ckv_query_view queries = device_queries(&p.queries);
  upload((int32_t *)(uintptr_t)keys.block_table + entry, &bad, sizeof bad);
  const ckv_status status = run_stages(&p, &queries, &keys);
  CHECK(status == CKV_ERROR_OUT_OF_BOUNDS, "block %d, %s: status %d", bad, text, status);
  compare_bytes(p.keys.data, keys.data, p.keys.size_bytes, text);
  device_reset(text);
  free_problem(&p);
}

// Indices outside, falling or repeated; lengths below 0 or above what there is.
static void bad_kept(void) {
  enum layout layout;
  ckv_kv_view v = random_view(2000, &layout);
  while (v.kv_len < 8) {
    free_view(&v);
    v = random_view(2000, &layout);
  }
  v.data = host_alloc(v.size_bytes);
  random_bytes(v.data, v.size_bytes);
  int32_t b = 0;
  while (len_of(&v, b) < v.kv_len) b++;
  const ckv_kept kept = random_kept(&v, KEEP_TOKENS);
  const int32_t set = b * kept.num_heads + test_int(0, kept.num_heads - 1);
  int32_t *indices = kept.indices + (int64_t)set * kept.capacity;
  kept.lens[b] = 4;
  for (int32_t h = 0; h < kept.num_heads; h++) {
    random_set(kept.indices + ((int64_t)b * kept.num_heads + h) * kept.capacity, v.kv_len, 4,
               KEEP_TOKENS);
  }
  const int32_t kind = test_int(0, 5);
  if (kind == 0) indices[3] = v.kv_len;
  if (kind == 1) indices[0] = -1;
  if (kind == 2) indices[2] = indices[1];
  if (kind == 3) indices[3] = INT32_MIN;
  if (kind == 4) kept.lens[b] = -1;
  if (kind == 5) kept.lens[b] = kept.capacity + 1;
  const ckv_kv_view on_device = device_kv(&v);
  const ckv_kept bad = device_kept(&kept);
  upload_kept(&bad, &kept);
  const ckv_status status = finished(ckv_compact(device, &on_device, NULL, &bad));
  // The CPU calls what it can see before it starts an invalid argument.
  CHECK(status == (device_kind == CKV_CPU ? CKV_ERROR_INVALID_ARGUMENT : CKV_ERROR_OUT_OF_BOUNDS),
        "bad kept of kind %d: status %d: %s", kind, status, ckv_context_error(device));
  compare_bytes(v.data, on_device.data, v.size_bytes, "bad kept moves nothing");
  device_reset("bad kept");
  free_kept(&kept);
  free(v.data);
  free_view(&v);
}

static void nan_in_scores(void) {
  selection s = random_selection(CKV_METHOD_CHUNKKV, 4097);
  const int32_t len = s.scores.kv_lens ? s.scores.kv_lens[0] : s.scores.kv_len;
  if (len > s.params.window) s.scores.data[test_int(0, len - s.params.window - 1)] = NAN;
  const ckv_kept shape =
      host_kept(s.scores.batch, 1, ckv_kept_capacity(&s.params, s.scores.kv_len));
  ckv_kept kept = device_kept(&shape);
  ckv_scores scores = s.scores;
  scores.data = device_copy(s.scores.data, s.scores.count * (int64_t)sizeof(float), 0);
  scores.kv_lens = device_copy(s.scores.kv_lens, s.scores.batch * (int64_t)sizeof(int32_t), 0);
  const ckv_status status = finished(ckv_select(device, &s.params, &scores, &kept));
  CHECK(status == (len > s.params.window ? CKV_ERROR_NUMERIC : CKV_OK), "NaN score: status %d",
        status);
  device_reset("NaN score");
  free_kept(&shape);
  free(s.scores.data);
  free((void *)(uintptr_t)s.scores.kv_lens);
}

// Where the best workspace does not fit into memory, a smaller one does. The fake device alone has so
// little.
static void little_memory(void) {
  if (device_kind == CKV_CPU) return;
  problem p = hostile_problem(CKV_F16);
  p.params.method = CKV_METHOD_CHUNKKV;
  const ckv_kv_view keys = device_kv(&p.keys);
  const ckv_query_view queries = device_queries(&p.queries);
  const ckv_layer layer = {sizeof layer, 0, &queries, &keys, NULL};
  const int64_t count = p.keys.batch * max_chunks_of(&p);
  float *chunk_scores = device_space(count * (int64_t)sizeof(float), 0);
  int64_t best = 0;
  char text[32];
  CHECK(ckv_workspace_best(device, &p.params, &layer, 1, &best) == CKV_OK, "size");
  CHECK(ckv_context_set_workspace(device, NULL, 0) == CKV_OK, "our own");
  snprintf(text, sizeof text, "%lld", (long long)best - 1);
  setenv("CHUNKKV_FAKE_LARGEST", text, 1);
  CHECK(
      finished(ckv_score_chunks(device, &p.params, &queries, &keys, chunk_scores, count)) == CKV_OK,
      "little memory: %s", ckv_context_error(device));
  unsetenv("CHUNKKV_FAKE_LARGEST");
  device_reset("little memory");
  free_problem(&p);
}

// What the host refuses before anything is queued.
static void bad_arguments(void) {
  if (device_kind == CKV_CPU) return;
  problem p = hostile_problem(CKV_F32);
  ckv_kv_view keys = device_kv(&p.keys);
  const ckv_query_view queries = device_queries(&p.queries);
  int64_t bytes = 0;
  const ckv_layer layer = {sizeof layer, 0, &queries, &keys, NULL};
  CHECK(ckv_workspace_size(device, &p.params, &layer, 1, &bytes) == CKV_OK, "size");
  CHECK(ckv_context_set_workspace(device, device_space(4096, 0), 4096) == CKV_OK, "small");
  CHECK(bytes <= 4096 || run_stages(&p, &queries, &keys) == CKV_ERROR_INVALID_ARGUMENT,
        "a workspace of 4096 bytes does for %lld", (long long)bytes);
  CHECK(ckv_context_set_workspace(device, NULL, 0) == CKV_OK, "our own again");
  keys.device = CKV_CPU;
  CHECK(run_stages(&p, &queries, &keys) == CKV_ERROR_UNSUPPORTED, "keys on the CPU");
  keys.device = CKV_CUDA;
  keys.data = (char *)keys.data + 1;
  CHECK(run_stages(&p, &queries, &keys) == CKV_ERROR_INVALID_ARGUMENT, "f32 at an odd address");
  device_reset("bad arguments");
  free_problem(&p);
}

// More heads than are counted are refused, and not silently left out. The fake device would walk memory
// that is not there.
static void too_many_heads(void) {
  char name[512];
  ckv_device_describe(device_kind, 0, name, sizeof name);
  if (device_kind == CKV_CPU || strstr(name, "No GPU at all")) return;
  ckv_kv_view v = {.struct_size = sizeof v, .dtype = CKV_F8_E4M3, .head_dim = 1};
  v.device = CKV_CUDA;
  v.batch = 32768;
  v.num_kv_heads = 65536;
  v.kv_len = 2;
  v.stride_token = 1;
  v.stride_head = 2;
  v.stride_batch = 2ll * v.num_kv_heads;
  v.size_bytes = v.stride_batch * v.batch;
  v.data = device_space(16, 0);
  const ckv_kept shape = {sizeof shape, v.batch, 1, 1, NULL, NULL};
  const ckv_kept kept = device_kept(&shape);
  const ckv_status status = finished(ckv_compact(device, &v, NULL, &kept));
  CHECK(status == CKV_ERROR_UNSUPPORTED, "too many heads: status %d: %s", status,
        ckv_context_error(device));
  device_reset("too many heads");
}

static void test_hostile(bool quick) {
  too_many_heads();
  for (int32_t round = 0; round < (quick ? 3 : 20); round++) {
    const int before = test_failed;
    for (int32_t dtype = 0; ckv_dtype_name(dtype); dtype++) nan_in_rows(dtype);
    for (int32_t dtype = CKV_F32; dtype <= CKV_BF16; dtype++) nothing_seen(dtype);
    bad_block_table();
    bad_kept();
    nan_in_scores();
    bad_arguments();
    little_memory();
    if (test_failed > before) printf("hostile, round %d: %d failed\n", round, test_failed - before);
  }
  printf("hostile: done\n");
}

#endif
