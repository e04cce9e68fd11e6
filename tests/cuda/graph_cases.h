// Stages in a CUDA graph: captured once, launched again on new input. The driver is asked directly;
// where there is none to ask, as with a fake device, the group is skipped.
#ifndef CKV_CUDA_TEST_GRAPH_CASES_H
#define CKV_CUDA_TEST_GRAPH_CASES_H

#include <dlfcn.h>

#include "compress_cases.h"

#define CAPTURE_RELAXED 2
#define STREAM_NON_BLOCKING 1

static struct driver {
  int (*cuStreamCreate)(void **stream, unsigned flags);
  int (*cuStreamDestroy_v2)(void *stream);
  int (*cuStreamSynchronize)(void *stream);
  int (*cuStreamBeginCapture_v2)(void *stream, int mode);
  int (*cuStreamEndCapture)(void *stream, void **graph);
  int (*cuGraphInstantiateWithFlags)(void **executable, void *graph, unsigned long long flags);
  int (*cuGraphLaunch)(void *executable, void *stream);
  int (*cuGraphExecDestroy)(void *executable);
  int (*cuGraphDestroy)(void *graph);
} driver;

static bool find_function(void *library, const char *name, void *function, size_t bytes) {
  void *symbol = library ? dlsym(library, name) : NULL;
  memcpy(function, &symbol, bytes);
  return symbol != NULL;
}

#define FIND(name) find_function(library, #name, &driver.name, sizeof driver.name)

static bool open_driver(void) {
  void *library = device_kind == CKV_CUDA ? dlopen("libcuda.so.1", RTLD_NOW) : NULL;
  return FIND(cuStreamCreate) && FIND(cuStreamDestroy_v2) && FIND(cuStreamSynchronize) &&
         FIND(cuStreamBeginCapture_v2) && FIND(cuStreamEndCapture) &&
         FIND(cuGraphInstantiateWithFlags) && FIND(cuGraphLaunch) && FIND(cuGraphExecDestroy) &&
         FIND(cuGraphDestroy);
}

// Token scores as the reference has them for the keys that p holds now.
static void compare_with_reference(const problem *p, const ckv_scores *on_device, float *found,
                                   const char *text) {
  ckv_scores want = scores_for(p, NULL);
  want.data = host_alloc(want.count * (int64_t)sizeof(float));
  CHECK(ckv_score(reference, &p->params, &p->queries, &p->keys, &want) == CKV_OK, "%s: %s", text,
        ckv_context_error(reference));
  download(found, on_device->data, want.count * (int64_t)sizeof(float));
  compare_scores(p, want.data, found);
  free(want.data);
}

// One layer's score and compress, captured; then new keys and values, each by a launch.
static void check_graph(void *stream) {
  problem p = make_problem(test_int(CKV_F16, CKV_BF16), CKV_BF16, 128, 2, 4, test_int(1, 3),
                           test_int(100, 3000), 32);
  p.params.spread = random_spread();
  char text[256];
  describe_problem(&p, text, sizeof text);
  ckv_kv_view values = p.keys;
  values.data = host_alloc(values.size_bytes);
  random_bytes(values.data, values.size_bytes);
  const ckv_kv_view keys = device_kv(&p.keys);
  ckv_kv_view rows = device_kv(&values);
  rows.kv_lens = keys.kv_lens;  // one array for all layers, as ckv_compress wants it
  const ckv_query_view queries = device_queries(&p.queries);
  const ckv_layer layer = {sizeof layer, 0, &queries, &keys, &rows};
  const ckv_kept found = host_kept(p.keys.batch, 1, ckv_kept_capacity(&p.params, p.keys.kv_len));
  ckv_kept kept = device_kept(&found);
  ckv_scores scores = scores_for(&p, NULL);
  const int64_t score_bytes = scores.count * (int64_t)sizeof(float);
  scores.kv_lens = keys.kv_lens;
  scores.data = device_space(score_bytes, 0);
  float *scored = host_alloc(score_bytes);
  int64_t bytes = 0;
  CHECK(ckv_workspace_best(device, &p.params, &layer, 1, &bytes) == CKV_OK, "%s", text);
  CHECK(ckv_context_set_stream(device, stream) == CKV_OK, "%s", text);
  CHECK(ckv_context_set_workspace(device, device_space(bytes, 0), bytes) == CKV_OK, "%s", text);
  CHECK(ckv_context_finish(device) == CKV_OK, "%s", ckv_context_error(device));

  void *graph = NULL, *executable = NULL;
  CHECK(driver.cuStreamBeginCapture_v2(stream, CAPTURE_RELAXED) == 0, "%s: begin", text);
  ckv_status status = ckv_score(device, &p.params, &queries, &keys, &scores);
  if (!status) status = ckv_compress(device, &p.params, &layer, 1, &kept);
  CHECK(status == CKV_OK, "%s: captured: %s", text, ckv_context_error(device));
  CHECK(driver.cuStreamEndCapture(stream, &graph) == 0, "%s: end", text);
  if (graph) {
    CHECK(driver.cuGraphInstantiateWithFlags(&executable, graph, 0) == 0, "%s: graph", text);
  }
  for (int round = 0; round < 3 && executable; round++) {
    fill_rows(&p, 0.3f);
    random_bytes(values.data, values.size_bytes);
    upload(keys.data, p.keys.data, p.keys.size_bytes);
    upload(rows.data, values.data, values.size_bytes);
    upload((void *)(uintptr_t)queries.data, p.queries.data, p.queries.size_bytes);
    CHECK(driver.cuGraphLaunch(executable, stream) == 0, "%s: launch", text);
    CHECK(ckv_context_finish(device) == CKV_OK, "%s: %s", text, ckv_context_error(device));
    compare_with_reference(&p, &scores, scored, text);
    download_kept(&found, &kept);
    compare_moved(&p.keys, &found, keys.data, text);
    compare_moved(&values, &found, rows.data, text);
    CHECK(found.lens[0] >= 0, "%s: %d kept", text, found.lens[0]);
  }
  if (executable) driver.cuGraphExecDestroy(executable);
  if (graph) driver.cuGraphDestroy(graph);
  CHECK(ckv_context_set_stream(device, NULL) == CKV_OK, "%s", text);
  device_reset(text);
  free_kept(&found);
  free(scored);
  free(values.data);
  free_problem(&p);
}

static void test_graph(bool quick) {
  void *stream = NULL;
  if (!open_driver()) {
    printf("graph: skipped: no CUDA driver to capture with\n");
    return;
  }
  device_space(1, 0);  // the first allocation makes the driver's context this thread's
  device_reset("a first allocation");
  CHECK(driver.cuStreamCreate(&stream, STREAM_NON_BLOCKING) == 0, "a stream");
  const int before = test_failed;
  for (int32_t round = 0; round < (quick ? 2 : 10) && stream; round++) check_graph(stream);
  if (stream) driver.cuStreamDestroy_v2(stream);
  printf("graph: %d failed\n", test_failed - before);
}

#endif
