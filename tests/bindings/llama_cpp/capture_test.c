// Capture on attention nodes made by hand: rows across graphs, masks, and kinds that are refused.
#include <string.h>

#include "capture.h"
#include "fake_engine.h"
#include "test.h"

#define Q_HEADS 4
#define MAX_TOKENS 100
#define MINUS_INFINITY 0xFC00u

static fake_engine engine;
static ckvl_capture capture;

// One attention node with all that it refers to.
typedef struct {
  struct ggml_tensor node, queries, keys, values, mask;
  float query_data[MAX_TOKENS * Q_HEADS * FAKE_KEY_DIM];
  uint16_t mask_data[MAX_TOKENS * FAKE_CELLS];
} attention;

// The query of position p has p in its first element, its head in the second.
static void make_attention(attention *a, int32_t layer, llama_pos first, int32_t tokens) {
  memset(a, 0, sizeof *a);
  const size_t head = 4 * FAKE_KEY_DIM;
  for (int32_t t = 0; t < tokens; t++) {
    for (int32_t h = 0; h < Q_HEADS; h++) {
      float *q = &a->query_data[(t * Q_HEADS + h) * FAKE_KEY_DIM];
      q[0] = (float)(first + t);
      q[1] = (float)h;
    }
    for (int32_t c = 0; c < FAKE_CELLS; c++) {
      // As many cells as there are positions, every other one.
      const bool seen = c % 2 == 0 && c / 2 <= (first + t) % 30;
      a->mask_data[t * FAKE_CELLS + c] = seen ? 0 : MINUS_INFINITY;
    }
  }
  a->queries = (struct ggml_tensor){.type = GGML_TYPE_F32,
                                    .ne = {FAKE_KEY_DIM, tokens, Q_HEADS, 1},
                                    .nb = {4, head * Q_HEADS, head, head * Q_HEADS},
                                    .data = a->query_data};
  a->keys = engine.keys[layer];
  a->keys.view_src = &engine.keys[layer];
  a->keys.ne[0] = FAKE_KEY_DIM;
  a->keys.ne[2] = FAKE_HEADS;
  a->keys.nb[2] = head;
  a->values = engine.values[layer];
  a->values.view_src = &engine.values[layer];
  a->values.ne[0] = FAKE_VALUE_DIM;
  a->values.ne[2] = FAKE_HEADS;
  a->values.nb[2] = 4 * FAKE_VALUE_DIM;
  a->mask = (struct ggml_tensor){.type = GGML_TYPE_F16,
                                 .ne = {FAKE_CELLS, tokens, 1, 1},
                                 .nb = {2, 2 * FAKE_CELLS, 0, 0},
                                 .data = a->mask_data};
  a->node = (struct ggml_tensor){.op = GGML_OP_FLASH_ATTN_EXT,
                                 .src = {&a->queries, &a->keys, &a->values, &a->mask}};
  const float parameters[] = {0.5f, 0.0f, 30.0f};
  memcpy(a->node.op_params, parameters, sizeof parameters);
}

// As the scheduler does: asks, computes, shows.
static void compute(attention *a) {
  if (ckvl_capture_node(&a->node, true, &capture)) ckvl_capture_node(&a->node, false, &capture);
}

static attention scratch;

// A batch of one sequence's tokens.
static void begin(llama_pos first, int32_t tokens, llama_pos from) {
  ckvl_capture_begin(&capture, &(ckvl_run){.end = tokens, .batch_tokens = tokens, .first = first},
                     from);
}

// A decode call in graphs of `graph` tokens.
static void decode(llama_pos first, int32_t tokens, llama_pos from, int32_t graph) {
  begin(first, tokens, from);
  for (int32_t done = 0; done < tokens; done += graph) {
    const int32_t step = tokens - done < graph ? tokens - done : graph;
    for (int32_t l = 0; l < FAKE_LAYERS; l++) {
      make_attention(&scratch, l, first + done, step);
      compute(&scratch);
    }
  }
  ckvl_capture_end(&capture, first + tokens, true);
}

static bool has_rows(llama_pos first, int32_t count) {
  if (capture.rows != count || capture.next != first + count) return false;
  for (int32_t l = 0; l < FAKE_LAYERS; l++) {
    for (int32_t i = 0; i < count; i++) {
      for (int32_t h = 0; h < Q_HEADS; h++) {
        const float *q = &capture.layers[l].queries[(i * Q_HEADS + h) * FAKE_KEY_DIM];
        if (q[0] != (float)(first + i) || q[1] != (float)h) return false;
      }
    }
  }
  return true;
}

static void set_up(void) {
  ckvl_capture_free(&capture);
  fake_engine_init(&engine);
  ckvl_capture_init(&capture, &engine.api);
}

static void keeps_the_newest_rows_across_graphs(void) {
  set_up();
  decode(0, 90, 90 - CKVL_WINDOW, 90);
  CHECK(capture.status == CKV_OK && capture.num_layers == 2, "%s", capture.reason.text);
  CHECK(has_rows(26, 64), "one graph");
  CHECK(capture.layers[1].scale == 0.5f && capture.layers[1].logit_softcap == 30.0f, "parameters");
  CHECK(capture.layers[0].mask == capture.layers[1].mask, "two masks");
  set_up();
  decode(0, 90, 90 - CKVL_WINDOW, 7);
  CHECK(has_rows(26, 64), "graphs of 7");
  // Another call joins, what it pushes out is gone.
  decode(90, 10, 36, 4);
  CHECK(has_rows(36, 64), "a second call");
  // Fewer are wanted than there are.
  set_up();
  decode(0, 50, 45, 20);
  CHECK(has_rows(45, 5), "five wanted");
  // A gap: rows before it do not count.
  decode(60, 3, 0, 3);
  CHECK(has_rows(60, 3), "after a gap");
}

static void reads_the_newest_tokens_cells(void) {
  set_up();
  decode(0, 25, 0, 10);
  const ckvl_mask *mask = &capture.masks[capture.layers[0].mask];
  bool right = mask->count == 25;
  for (int32_t i = 0; i < mask->count; i++) right = right && mask->cells[i] == 2 * i;
  CHECK(right, "%d cells", mask->count);
}

static void keeps_rows_when_cells_have_moved(void) {
  set_up();
  decode(0, 20, 0, 20);
  CHECK(capture.has_cells, "no cells");
  ckvl_capture_forget_cells(&capture);
  CHECK(!capture.has_cells && has_rows(0, 20), "rows are gone with the cells");
  decode(20, 1, 0, 1);
  CHECK(capture.has_cells && has_rows(0, 21), "rows did not join");
}

static void forgets_a_call_that_failed(void) {
  set_up();
  decode(0, 20, 0, 20);
  begin(20, 5, 0);
  make_attention(&scratch, 0, 20, 5);
  compute(&scratch);
  ckvl_capture_end(&capture, 25, false);
  CHECK(capture.rows == 0 && capture.next == -1, "rows of a failed call");
}

// What the capture says of one node that was changed.
static void refuse(const char *text) {
  begin(0, 8, 0);
  compute(&scratch);
  ckvl_capture_end(&capture, 8, true);
  CHECK(capture.status == CKV_ERROR_UNSUPPORTED && strstr(capture.reason.text, text), "%s: %s",
        text, capture.reason.text);
  CHECK(capture.rows == 0, "rows of a refused call");
  set_up();
  make_attention(&scratch, 0, 0, 8);
}

// Batches of 10 tokens in graphs of 4: the sequence has those from 3 to 8, others the rest.
static void takes_its_own_run_of_a_batch(void) {
  set_up();
  const ckvl_run run = {.begin = 3, .end = 9, .batch_tokens = 10, .first = 40};
  ckvl_capture_begin(&capture, &run, 42);
  for (int32_t done = 0; done < 10; done += 4) {
    for (int32_t l = 0; l < FAKE_LAYERS; l++) {
      // Token i of the batch would be at position 37 + i of this sequence.
      make_attention(&scratch, l, 37 + done, 10 - done < 4 ? 10 - done : 4);
      compute(&scratch);
    }
  }
  ckvl_capture_end(&capture, 46, true);
  CHECK(capture.status == CKV_OK, "%s", capture.reason.text);
  CHECK(has_rows(42, 4) && capture.has_cells, "rows of others");
}

// A cache with two streams; the sequence has the second one.
static void takes_its_own_stream(void) {
  set_up();
  const ckvl_run run = {.seq = 1, .end = 5, .batch_tokens = 10, .first = 7};
  ckvl_capture_begin(&capture, &run, 0);
  for (int32_t l = 0; l < FAKE_LAYERS; l++) {
    make_attention(&scratch, l, 100, 10);
    struct ggml_tensor *const views[] = {&scratch.keys, &scratch.values};
    struct ggml_tensor *const bases[] = {&engine.keys[l], &engine.values[l]};
    for (int32_t side = 0; side < 2; side++) {
      bases[side]->ne[2] = views[side]->ne[3] = 2;
      views[side]->nb[3] = bases[side]->nb[2];
    }
    // The queries of both in one tensor, 5 each.
    scratch.queries.ne[1] = 5;
    scratch.queries.ne[3] = scratch.mask.ne[3] = 2;
    scratch.queries.nb[3] = 5 * scratch.queries.nb[1];
    scratch.mask.nb[3] = 5 * scratch.mask.nb[1];
    compute(&scratch);
  }
  ckvl_capture_end(&capture, 12, true);
  CHECK(capture.status == CKV_OK, "%s", capture.reason.text);
  CHECK(capture.rows == 5 && capture.layers[1].stream == 1, "%d rows", capture.rows);
  CHECK(capture.layers[1].queries[0] == 105.0f, "queries of another stream");
}

static void refuses_other_kinds(void) {
  set_up();
  make_attention(&scratch, 0, 0, 8);
  scratch.node.src[2] = &scratch.keys;
  refuse("MLA");
  const float bias = 8;
  memcpy((char *)scratch.node.op_params + 4, &bias, sizeof bias);
  refuse("ALiBi");
  strcpy(engine.keys[0].name, "something");
  refuse("'something'");
  strcpy(engine.keys[0].name, "cache_k_l0x");
  refuse("'cache_k_l0x'");
  strcpy(engine.values[0].name, "cache_v_l1");
  refuse("cache_v_l0");
  engine.keys[0].ne[2] = 2;
  refuse("another layout");
  scratch.values.nb[1] = 4;
  refuse("another layout");
  scratch.queries.type = GGML_TYPE_F16;
  refuse("f32 queries");
  scratch.mask.type = GGML_TYPE_F32;
  refuse("f16 mask");
  scratch.mask_data[7 * FAKE_CELLS] = 0x3C00;
  refuse("0 and -inf");
  engine.keys[0].type = scratch.keys.type = GGML_TYPE_Q4_1;
  refuse("f32, f16, bf16");
}

static void refuses_layers_that_share_a_cache(void) {
  set_up();
  begin(0, 8, 0);
  for (int32_t i = 0; i < 3; i++) {
    make_attention(&scratch, i / 2, 0, 8);
    compute(&scratch);
  }
  ckvl_capture_end(&capture, 8, true);
  CHECK(capture.status == CKV_ERROR_UNSUPPORTED && strstr(capture.reason.text, "more"), "%s",
        capture.reason.text);
}

static int32_t pinned_layers(const ckvl_capture *of) {
  int32_t count = 0;
  for (int32_t l = 0; l < of->num_layers; l++) count += of->layers[l].pinned != NULL;
  return count;
}

static void set_up_pinning(bool on_device) {
  set_up();
  engine.on_device = on_device;
  capture.pins = &engine.host;
}

// Whatever memory they are in, the rows are the same.
static void pins_the_queries_of_a_device(void) {
  set_up_pinning(true);
  decode(0, 90, 90 - CKVL_WINDOW, 7);
  CHECK(has_rows(26, 64) && pinned_layers(&capture) == FAKE_LAYERS, "not in pinned memory");
  CHECK(engine.pinned == FAKE_LAYERS, "%d buffers", engine.pinned);
  ckvl_capture copy;
  ckvl_error error;
  ckvl_capture_init(&copy, &engine.api);
  CHECK(ckvl_capture_copy(&copy, &capture, &error) == CKV_OK, "%s", error.text);
  CHECK(pinned_layers(&copy) == 0 && copy.pins == &engine.host, "a copy in pinned memory");
  ckvl_capture_free(&capture);
  CHECK(engine.pinned == 0 && capture.pins == &engine.host, "%d buffers left", engine.pinned);
  capture = copy;
  CHECK(has_rows(26, 64), "the copy's rows are gone with the capture's");

  set_up_pinning(false);
  decode(0, 20, 0, 20);
  CHECK(has_rows(0, 20) && engine.pinned == 0, "pinned for the CPU");
  set_up_pinning(true);
  capture.pins = NULL;
  decode(0, 20, 0, 20);
  CHECK(has_rows(0, 20) && engine.pinned == 0, "pinned for one who does not want it");
  for (int32_t lack = 0; lack < 2; lack++) {
    set_up_pinning(true);
    engine.has_no_host_type = lack == 0;
    engine.has_no_host_memory = lack == 1;
    decode(0, 20, 0, 20);
    CHECK(has_rows(0, 20) && engine.pinned == 0, "no rows without pinned memory");
  }
}

static void ignores_other_nodes(void) {
  set_up();
  struct ggml_tensor node = {.op = GGML_OP_MUL_MAT};
  begin(0, 8, 0);
  CHECK(!ckvl_capture_node(&node, true, &capture), "asked for another node");
  CHECK(ckvl_capture_node(&node, false, &capture), "stopped the engine");
  ckvl_capture_end(&capture, 8, true);
  CHECK(capture.status == CKV_OK && capture.num_layers == 0, "a layer from nowhere");
}

int main(void) {
  test_begin("llama_capture_test");
  keeps_the_newest_rows_across_graphs();
  reads_the_newest_tokens_cells();
  keeps_rows_when_cells_have_moved();
  forgets_a_call_that_failed();
  takes_its_own_run_of_a_batch();
  takes_its_own_stream();
  refuses_other_kinds();
  refuses_layers_that_share_a_cache();
  pins_the_queries_of_a_device();
  ignores_other_nodes();
  ckvl_capture_free(&capture);
  return test_end();
}
