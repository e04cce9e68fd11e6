// Compaction against an engine that fails: whatever happens, the sequence is compacted, as before,
// or known to be lost; others are never touched.
#include <string.h>

#include "compaction.h"
#include "fake_engine.h"
#include "test.h"

#define TOKENS 20
#define KEPT 8
#define OTHERS 10

static fake_engine engine, before;
static ckvl_capture capture;
static ckvl_compaction compaction;
static ckvl_error error;
static ckv_context *library;
static int32_t sets[FAKE_LAYERS][KEPT], lens[FAKE_LAYERS];

// Sequence 0 in cells around those of sequence 1, its last tokens in the first cells.
static void set_up(void) {
  fake_engine_init(&engine);
  fake_engine_add(&engine, 0, 0, 12, 40);
  fake_engine_add(&engine, 1, 100, OTHERS, 45);
  fake_engine_add(&engine, 0, 12, 8, 3);
  ckvl_capture_init(&capture, &engine.api);
  capture.layers = calloc(FAKE_LAYERS, sizeof *capture.layers);
  capture.num_layers = capture.capacity = FAKE_LAYERS;
  for (int32_t l = 0; l < FAKE_LAYERS; l++) {
    capture.layers[l] = (ckvl_layer){.index = l,
                                     .streams = 1,
                                     .num_q_heads = FAKE_HEADS,
                                     .num_kv_heads = FAKE_HEADS,
                                     .key_dim = FAKE_KEY_DIM,
                                     .value_dim = FAKE_VALUE_DIM,
                                     .scale = 1,
                                     .keys = &engine.keys[l],
                                     .values = &engine.values[l]};
    lens[l] = KEPT;
    for (int32_t i = 0; i < KEPT - 1; i++) sets[l][i] = 2 * i + l;
    sets[l][KEPT - 1] = TOKENS - 1;
  }
  capture.masks[0].cells = malloc(sizeof(int32_t) * FAKE_CELLS);
  capture.masks[0].count = fake_engine_cells(&engine, 0, capture.masks[0].cells);
  capture.next = TOKENS;
  capture.rows = 1;
  capture.has_cells = true;
  compaction = (ckvl_compaction){.api = &engine.api,
                                 .ctx = fake_context(&engine),
                                 .capture = &capture,
                                 .ckv = library,
                                 .error = &error};
  error.text[0] = '\0';
}

static void tear_down(void) {
  ckvl_compaction_free(&compaction);
  ckvl_capture_free(&capture);
}

static void clear_sequence(int32_t sequence) {
  engine.api.llama_memory_seq_rm((llama_memory_t)(void *)&engine, sequence, -1, -1);
}

// Prepare and use the sets; after a fault has been set.
static ckv_status use(void) {
  before = engine;
  ckvl_kept kept;
  ckv_status status = ckvl_compaction_prepare(&compaction);
  if (status) return status;
  CHECK(ckvl_kept_init(&kept, FAKE_LAYERS, 1, KEPT, &error) == CKV_OK, "memory");
  kept.len = KEPT;
  for (int32_t l = 0; l < FAKE_LAYERS; l++) {
    kept.heads[l] = 1;
    kept.lens[l] = lens[l];
    memcpy(ckvl_kept_indices(&kept, l), sets[l], sizeof sets[l]);
  }
  status = ckvl_compaction_use(&compaction, &kept);
  ckvl_kept_free(&kept);
  return status;
}

static ckv_status run(void) {
  const ckv_status status = use();
  return status ? status : ckvl_compaction_commit(&compaction);
}

static int32_t cell_of(const fake_engine *e, int32_t sequence, int32_t position) {
  for (int32_t c = 0; c < FAKE_CELLS; c++) {
    if (e->position[c] == position && (e->owners[c] >> sequence & 1u)) return c;
  }
  return -1;
}

static bool same_row(const struct ggml_tensor *now, int32_t cell, const struct ggml_tensor *then,
                     const float *data, int32_t old_cell) {
  return cell >= 0 && old_cell >= 0 &&
         memcmp((const char *)now->data + (size_t)cell * now->nb[1],
                (const char *)data + (size_t)old_cell * then->nb[1], now->nb[1]) == 0;
}

// Every token of the sequence has the rows that it had, in whatever cell.
static bool is_unchanged(int32_t sequence) {
  for (int32_t c = 0; c < FAKE_CELLS; c++) {
    if (before.position[c] < 0 || !(before.owners[c] >> sequence & 1u)) continue;
    const int32_t now = cell_of(&engine, sequence, before.position[c]);
    for (int32_t l = 0; l < FAKE_LAYERS; l++) {
      if (!same_row(&engine.keys[l], now, &before.keys[l], before.key_data[l], c) ||
          !same_row(&engine.values[l], now, &before.values[l], before.value_data[l], c)) {
        return false;
      }
    }
  }
  int32_t cells[FAKE_CELLS];
  return fake_engine_cells(&engine, sequence, cells) == fake_engine_cells(&before, sequence, cells);
}

static bool is_compacted(void) {
  int32_t cells[FAKE_CELLS];
  if (fake_engine_cells(&engine, 0, cells) != KEPT) return false;
  for (int32_t i = 0; i < KEPT; i++) {
    // Positions are those that the first layer kept.
    const int32_t now = cell_of(&engine, 0, sets[0][i]);
    for (int32_t l = 0; l < FAKE_LAYERS; l++) {
      // A shorter set has its last token in the last cell, and zero keys in what lies between.
      const bool is_hidden = i >= lens[l] - 1 && i < KEPT - 1;
      static const float zeros[FAKE_HEADS * FAKE_KEY_DIM];
      if (is_hidden) {
        if (!same_row(&engine.keys[l], now, &before.keys[l], zeros, 0)) return false;
        continue;
      }
      const int32_t then = cell_of(&before, 0, sets[l][i < lens[l] - 1 ? i : lens[l] - 1]);
      if (!same_row(&engine.keys[l], now, &before.keys[l], before.key_data[l], then) ||
          !same_row(&engine.values[l], now, &before.values[l], before.value_data[l], then)) {
        return false;
      }
    }
  }
  return true;
}

static bool is_gone(void) {
  int32_t cells[FAKE_CELLS];
  return fake_engine_cells(&engine, 0, cells) == 0;
}

static void compacts_each_layer_by_its_own_set(void) {
  set_up();
  CHECK(run() == CKV_OK, "%s", error.text);
  CHECK(is_compacted(), "rows or positions of other tokens");
  CHECK(is_unchanged(1), "the other sequence changed");
  tear_down();
}

static void shorten(int32_t layer, int32_t len) {
  sets[layer][len - 1] = TOKENS - 1;
  lens[layer] = len;
}

static void hides_what_a_shorter_layer_does_not_keep(void) {
  for (int32_t len = 1; len < KEPT; len++) {
    set_up();
    shorten(1, len);
    CHECK(run() == CKV_OK, "%s", error.text);
    CHECK(is_compacted() && is_unchanged(1), "rows or positions of other tokens, %d kept", len);
    tear_down();
    set_up();
    shorten(1, len);
    engine.remove_refuses = true;
    CHECK(run() == CKV_ERROR_ENGINE, "%s", error.text);
    CHECK(is_unchanged(0) && is_unchanged(1), "rows have moved, %d kept", len);
    tear_down();
  }
}

static void undoes_rows_when_the_engine_keeps_its_cells(void) {
  set_up();
  engine.remove_refuses = true;
  CHECK(run() == CKV_ERROR_ENGINE, "%s", error.text);
  CHECK(!compaction.is_lost && strstr(error.text, "it refused"), "%s", error.text);
  CHECK(is_unchanged(0) && is_unchanged(1), "rows have moved");
  tear_down();
}

static void undoes_rows_when_a_layer_cannot_be_gathered(void) {
  set_up();
  // Too long for the library: found only when the first layer's rows have moved.
  struct ggml_tensor *values = &engine.values[1];
  values->ne[0] = FAKE_HEADS * FAKE_MAX_VALUE_DIM;
  values->nb[1] = 4 * (size_t)values->ne[0];
  capture.layers[1].value_dim = FAKE_MAX_VALUE_DIM;
  CHECK(run() == CKV_ERROR_INVALID_ARGUMENT, "%s", error.text);
  CHECK(!compaction.is_lost && strstr(error.text, "Layer 1"), "%s", error.text);
  CHECK(is_unchanged(0) && is_unchanged(1), "rows have moved");
  tear_down();
}

static void tells_that_the_sequence_is_lost(void) {
  set_up();
  engine.saves_to_fail = 1;
  CHECK(run() == CKV_ERROR_ENGINE, "%s", error.text);
  CHECK(compaction.is_lost && is_gone() && is_unchanged(1), "after a failed save");
  tear_down();
  set_up();
  engine.restores_to_fail = 2;
  CHECK(run() == CKV_ERROR_ENGINE, "%s", error.text);
  CHECK(compaction.is_lost && is_gone() && is_unchanged(1), "after two failed restores");
  tear_down();
}

static void tries_again_to_restore(void) {
  set_up();
  engine.restores_to_fail = 1;
  CHECK(run() == CKV_OK, "%s", error.text);
  CHECK(is_compacted() && is_unchanged(1), "rows or positions of other tokens");
  tear_down();
}

// The sequence by itself, in cells from the first on or later.
static void set_up_alone(uint32_t sequences, int32_t first_cell) {
  set_up();
  clear_sequence(1);
  clear_sequence(0);
  fake_engine_add(&engine, 0, 0, TOKENS, first_cell);
  capture.masks[0].count = fake_engine_cells(&engine, 0, capture.masks[0].cells);
  engine.sequences = sequences;
  compaction.ctx = fake_context(&engine);
}

// As run(), the rows on a device: which only the library's own memory is here.
static ckv_status run_on_device(void) {
  engine.remove_refuses = false;
  const ckv_status status = use();
  if (status) return status;
  ckvl_state_swap swap = {0};
  CHECK(ckvl_state_swap_begin(&compaction, &swap) == CKV_OK, "%s", error.text);
  swap.flags = LLAMA_STATE_SEQ_FLAGS_ON_DEVICE;
  swap.clears = compaction.alone.is_so;
  CHECK(swap.clears && ckvl_rows_begin(&compaction) == CKV_OK, "%s", error.text);
  CHECK(ckvl_rows_gather(&compaction) == CKV_OK, "%s", error.text);
  const ckv_status replaced = ckvl_state_swap_replace(&compaction, &swap);
  ckvl_places_end(&compaction);
  ckvl_state_swap_end(&swap);
  return replaced;
}

static bool has_cells(int32_t sequence) {
  int32_t cells[FAKE_CELLS];
  return fake_engine_cells(&engine, sequence, cells) > 0;
}

static void clears_the_cache_of_a_sequence_by_itself(void) {
  for (uint32_t sequences = 1; sequences <= 2; sequences++) {
    for (int32_t first = 0; first <= 50; first += 50) {  // the last of them wrap around
      set_up_alone(sequences, first);
      CHECK(run_on_device() == CKV_OK, "%s", error.text);
      CHECK(is_compacted() && engine.clears == 1, "rows or positions of other tokens");
      CHECK(!has_cells(1), "what was lent is still there");
      CHECK(engine.saved_cells == 1, "%d rows stay on the device", engine.saved_cells);
      tear_down();
      set_up_alone(sequences, first);
      CHECK(run() == CKV_OK, "%s", error.text);
      CHECK(is_compacted() && engine.clears == 0, "through the host's memory");
      tear_down();
    }
  }
}

static void says_what_fails_of_a_sequence_by_itself(void) {
  for (uint32_t sequences = 1; sequences <= 2; sequences++) {
    set_up_alone(sequences, 0);
    engine.saves_to_pass = 1;
    engine.saves_to_fail = 1;
    CHECK(run_on_device() == CKV_ERROR_ENGINE, "%s", error.text);
    CHECK(engine.clears == 0 && !has_cells(1), "cleared, or cells still lent");
    tear_down();
    set_up_alone(sequences, 0);
    engine.restores_to_fail = 1;
    CHECK(run_on_device() == CKV_OK && is_compacted(), "%s", error.text);
    tear_down();
    set_up_alone(sequences, 0);
    engine.restores_to_fail = 2;
    CHECK(run_on_device() == CKV_ERROR_ENGINE && is_gone() && !has_cells(1), "%s", error.text);
    tear_down();
  }
}

// A cell of any other sequence, of one that the context does not use too, and nothing is cleared.
static void is_not_alone_beside_others(void) {
  for (int32_t other = 1; other < FAKE_SEQUENCES; other++) {
    set_up_alone(2, 0);
    fake_engine_add(&engine, other, 7, 1, 60);
    if (other == 1) {
      CHECK(use() == CKV_OK && !compaction.alone.is_so, "%s", error.text);
    } else {
      CHECK(use() == CKV_ERROR_UNSUPPORTED && !compaction.alone.is_so, "%s", error.text);
    }
    CHECK(memcmp(&engine, &before, sizeof engine) == 0, "the engine changed");
    tear_down();
  }
  set_up_alone(2, 0);
  CHECK(use() == CKV_OK && compaction.alone.is_so && compaction.knows_device, "%s", error.text);
  CHECK(memcmp(&engine, &before, sizeof engine) == 0, "the engine changed");
  tear_down();
}

static void refuse(ckv_status expected, const char *text) {
  CHECK(run() == expected && strstr(error.text, text), "%s", error.text);
  CHECK(memcmp(&engine, &before, sizeof engine) == 0, "the engine changed");
  tear_down();
}

static void refuses_what_it_does_not_know(void) {
  set_up();
  engine.owners[cell_of(&engine, 0, 3)] |= 2u;
  refuse(CKV_ERROR_UNSUPPORTED, "shares");
  set_up();
  engine.owners[cell_of(&engine, 0, 3)] |= 4u;  // a number that the engine's states do not name
  refuse(CKV_ERROR_UNSUPPORTED, "found cells of sequence 2");
  set_up();
  engine.on_device = true;
  refuse(CKV_ERROR_UNSUPPORTED, "host memory");
  set_up();
  engine.streams = 2;
  refuse(CKV_ERROR_UNSUPPORTED, "2 streams");
  set_up();
  engine.extra_bytes = 8;
  refuse(CKV_ERROR_UNSUPPORTED, "but the engine has");
  set_up();
  capture.num_layers = 1;  // a layer that the capture has missed
  refuse(CKV_ERROR_UNSUPPORTED, "but the engine has");
  set_up();
  capture.masks[0].count--;
  refuse(CKV_ERROR_UNSUPPORTED, "to see all 20 cells of its sequence but it sees 19");
  set_up();
  engine.position[cell_of(&engine, 0, 7)] = 6;
  refuse(CKV_ERROR_UNSUPPORTED, "two at position 6");
  set_up();
  capture.next = TOKENS - 1;
  refuse(CKV_ERROR_INVALID_ARGUMENT, "up to position 19");
}

static void refuses_what_it_does_not_know_of_a_sequence_by_itself(void) {
  for (uint32_t sequences = 1; sequences <= 2; sequences++) {
    set_up_alone(sequences, 0);
    engine.streams = 2;
    refuse(CKV_ERROR_UNSUPPORTED, "2 streams");
    set_up_alone(sequences, 0);
    engine.extra_bytes = 8;
    refuse(CKV_ERROR_UNSUPPORTED, "but the engine has");
    set_up_alone(sequences, 0);
    capture.num_layers = 1;
    refuse(CKV_ERROR_UNSUPPORTED, "but the engine has");
    for (int32_t more = -1; more <= 1; more += 2) {
      set_up_alone(sequences, 0);
      capture.masks[0].count += more;
      refuse(CKV_ERROR_UNSUPPORTED, "to see all 20 cells of its sequence but it sees");
    }
    set_up_alone(sequences, 0);
    engine.position[7] = 6;
    refuse(CKV_ERROR_UNSUPPORTED, "two at position 6");
  }
}

static void refuses_indices_that_do_not_fit(void) {
  set_up();
  sets[1][KEPT - 1] = TOKENS - 2;
  refuse(CKV_ERROR_INVALID_ARGUMENT, "newest token, 19");
  set_up();
  sets[1][1] = sets[1][0];
  refuse(CKV_ERROR_INVALID_ARGUMENT, "to rise inside 0 to 19");
}

int main(void) {
  test_begin("llama_compaction_test");
  ckv_context_params params;
  ckv_context_default_params(&params);
  params.num_threads = 1;
  CHECK(ckv_context_create(&params, &library) == CKV_OK, "no context");
  compacts_each_layer_by_its_own_set();
  hides_what_a_shorter_layer_does_not_keep();
  undoes_rows_when_the_engine_keeps_its_cells();
  undoes_rows_when_a_layer_cannot_be_gathered();
  tells_that_the_sequence_is_lost();
  tries_again_to_restore();
  refuses_what_it_does_not_know();
  refuses_what_it_does_not_know_of_a_sequence_by_itself();
  refuses_indices_that_do_not_fit();
  clears_the_cache_of_a_sequence_by_itself();
  says_what_fails_of_a_sequence_by_itself();
  is_not_alone_beside_others();
  ckv_context_free(library);
  return test_end();
}
