// The llama.cpp bridge on the real engine while each of its allocations, and each call of the engine,
// fails in turn: an error or a success, nothing between, nothing leaked; done again, it succeeds, and
// all ends with the bits of a run without faults.
//   bridge_fault_test LIBLLAMA FOLDER MODEL SLIDING_MODEL
#include <string.h>

#include "../csrc/test.h"
#include "bridge.h"
#include "inject.h"

enum { PROMPT = 90, BATCH = 128, BUDGET = 40, WINDOW = 16, MORE = 3, CELLS = 512, OTHERS = 24 };

static ckv_llama_engine *engine;
static int32_t prompt[PROMPT];

// What a run ends with.
typedef struct outcome {
  int64_t state_bytes;
  uint8_t *state;
  int32_t tokens[MORE];
} outcome;

static long failures;
static bool refreshed;  // the window's queries were computed again, and so some rows

// A call that may fail once is made again without faults and must then succeed.
#define TAKES(call)                                                         \
  do {                                                                      \
    ckv_status taken_ = (call);                                             \
    if (taken_ != CKV_OK) {                                                 \
      failures++;                                                           \
      inject_allocation(0, false);                                          \
      taken_ = (call);                                                      \
    }                                                                       \
    CHECK(taken_ == CKV_OK, "status %d after %s", taken_, inject_failed()); \
  } while (0)

// The same of what makes an object.
#define MADE(object, call)                              \
  do {                                                  \
    object = (call);                                    \
    if (!object) {                                      \
      failures++;                                       \
      inject_allocation(0, false);                      \
      object = (call);                                  \
    }                                                   \
    CHECK(object, "nothing after %s", inject_failed()); \
  } while (0)

static ckv_llama_model *load(const char *path) {
  ckv_llama_model *model;
  const ckv_llama_model_params params = {.struct_size = sizeof params};
  MADE(model, ckv_llama_model_new(engine));
  TAKES(ckv_llama_model_load(model, path, &params));
  return model;
}

static ckv_llama_context *open_context(ckv_llama_model *model) {
  ckv_llama_context *context;
  const ckv_llama_context_params params = {.struct_size = sizeof params,
                                           .context_size = CELLS,
                                           .batch_size = BATCH,
                                           .micro_batch_size = 32,
                                           .num_threads = 1,
                                           .key_type = CKV_F16,
                                           .value_type = CKV_F16,
                                           .num_sequences = 2,
                                           .flash_attention = 1,
                                           .isa = CKV_ISA_BEST};
  MADE(context, ckv_llama_context_new(model));
  TAKES(ckv_llama_context_init(context, &params));
  return context;
}

static ckv_status prefill_sequence(ckv_llama_context *context, int32_t sequence, int32_t tokens) {
  ckv_status status = ckv_llama_prefill_begin(context, sequence, tokens);
  for (int32_t done = 0; done < tokens && !status;) {
    const int32_t step = tokens - done < BATCH ? tokens - done : BATCH;
    status = ckv_llama_prefill_step(context, prompt + done, step);
    done += step;
  }
  return status;
}

static ckv_status prefill(ckv_llama_context *context) {
  return prefill_sequence(context, 0, PROMPT);
}

static uint8_t *state_of_sequence(ckv_llama_context *context, int32_t sequence, int64_t *bytes) {
  *bytes = ckv_llama_state_size(context, sequence);
  uint8_t *state = malloc((size_t)*bytes);
  CHECK(state && ckv_llama_state_get(context, sequence, state, *bytes) == *bytes, "state");
  return state;
}

static uint8_t *state_of(ckv_llama_context *context, int64_t *bytes) {
  return state_of_sequence(context, 0, bytes);
}

static bool is_state(ckv_llama_context *context, const uint8_t *state, int64_t bytes) {
  int64_t now_bytes;
  uint8_t *now = state_of(context, &now_bytes);
  const bool same = now_bytes == bytes && memcmp(now, state, (size_t)bytes) == 0;
  free(now);
  return same;
}

static int32_t number_at(const uint8_t *state, int64_t offset) {
  int32_t number;
  memcpy(&number, state + offset, sizeof number);
  return number;
}

// The same tokens, and the same rows but for those of the newest `again`, which may have been decoded
// again: in a batch of another size they come out with other last bits.
static bool is_but_for(ckv_llama_context *context, const uint8_t *state, int64_t bytes,
                       int32_t again) {
  int64_t now_bytes;
  uint8_t *now = state_of(context, &now_bytes);
  const int32_t newest = ckv_llama_sequence_length(context, 0) - 1;
  bool same = now_bytes == bytes && memcmp(now, state, 8) == 0;
  int64_t at = 8;
  while (same && at < bytes) {  // a cache, and one more for layers with sliding windows
    const int32_t cells = number_at(state, at + 4);
    const int64_t positions = at + 8, rows = positions + 12 * (int64_t)cells + 8;
    const int64_t layers = number_at(state, rows - 4);
    same = memcmp(now + at, state + at, (size_t)(rows - at)) == 0;
    at = rows;
    for (int64_t side = 0; same && side < 2 * layers; side++) {
      const int64_t row = number_at(state, at + 4);
      at += 12;
      for (int32_t i = 0; i < cells; i++, at += row) {
        const bool may_differ = number_at(state, positions + 12 * (int64_t)i) > newest - again;
        same = same && (may_differ || memcmp(now + at, state + at, (size_t)row) == 0);
      }
    }
  }
  free(now);
  return same && at == bytes;
}

static ckv_status compress(ckv_llama_context *context, int32_t method) {
  ckv_params params;
  ckv_default_params(&params);
  params.method = method;
  params.budget = method == CKV_METHOD_SNAPKV ? BUDGET / 2 : BUDGET;
  params.window = WINDOW;
  ckv_llama_report report = {.struct_size = sizeof report};
  const ckv_status status = ckv_llama_compress(context, 0, &params, 0, &report);
  refreshed = refreshed || report.refresh_ms > 0;
  return status;
}

// A compression that fails leaves the sequence as it was.
static void compress_or_not(ckv_llama_context *context, int32_t method) {
  int64_t bytes;
  uint8_t *before = state_of(context, &bytes);
  const ckv_status status = compress(context, method);
  if (status != CKV_OK) {
    failures++;
    CHECK(status == CKV_ERROR_OUT_OF_MEMORY, "status %d: %s", status,
          ckv_llama_context_error(context));
    CHECK(is_but_for(context, before, bytes, WINDOW), "changed after %s", inject_failed());
    inject_allocation(0, false);
    unsetenv("CHUNKKV_FAKE_ALLOCATIONS");
    CHECK(compress(context, method) == CKV_OK, "again: %s", ckv_llama_context_error(context));
  }
  free(before);
}

static void generate(ckv_llama_context *context, ckv_llama_model *model, int32_t tokens[MORE]) {
  const ckv_llama_sampler_params params = {
      .struct_size = sizeof params, .top_p = 1, .repeat_penalty = 1, .ignore_end = 1};
  ckv_llama_sampler *sampler;
  int32_t is_end;
  MADE(sampler, ckv_llama_sampler_new(model, &params));
  for (int32_t i = 0; i < MORE; i++) {
    TAKES(ckv_llama_generate_step(context, 0, sampler, &tokens[i], &is_end));
  }
  ckv_llama_sampler_free(sampler);
}

// A state goes out and comes in, a sequence is copied and shifted.
static void move_about(ckv_llama_context *context) {
  int64_t bytes;
  uint8_t *state = state_of(context, &bytes);
  TAKES(ckv_llama_sequence_copy(context, 0, 1));
  TAKES(ckv_llama_sequence_remove(context, 1, 0, -1));
  TAKES(ckv_llama_state_set(context, 0, state, bytes, prompt, PROMPT));
  CHECK(is_state(context, state, bytes), "the state that was set");
  if (ckv_llama_sequence_cells(context, 0) < 0) failures++;
  inject_allocation(0, false);
  CHECK(ckv_llama_sequence_cells(context, 0) == (bytes > 0 ? BUDGET / 2 + MORE : 0), "%d cells",
        ckv_llama_sequence_cells(context, 0));
  free(state);
}

static outcome run(const char *path) {
  outcome o = {0};
  ckv_llama_model *model = load(path);
  ckv_llama_context *context = open_context(model);
  TAKES(prefill(context));
  compress_or_not(context, CKV_METHOD_CHUNKKV);
  compress_or_not(context, CKV_METHOD_SNAPKV);
  generate(context, model, o.tokens);
  o.state = state_of(context, &o.state_bytes);
  move_about(context);
  ckv_llama_context_free(context);
  ckv_llama_model_free(model);
  return o;
}

static void every_allocation_fails_once(const char *path, bool forever) {
  inject_allocation(0, false);
  const long base = inject_live();
  outcome whole = run(path);
  CHECK(inject_live() == base, "%ld left", inject_live() - base);
  long k = 1, again = 0;
  for (failures = 0;; k++) {
    refreshed = false;
    inject_allocation(k, forever);
    outcome o = run(path);
    const bool fired = inject_failed() != NULL;
    const bool same = memcmp(o.state, whole.state, (size_t)whole.state_bytes) == 0 &&
                      memcmp(o.tokens, whole.tokens, sizeof o.tokens) == 0;
    CHECK(o.state_bytes == whole.state_bytes && (same || refreshed), "allocation %ld: another end",
          k);
    again += !same;
    CHECK(inject_live() == base, "allocation %ld: %ld left", k, inject_live() - base);
    free(o.state);
    if (!fired) break;
  }
  printf(
      "bridge: %ld allocations failed %s, %ld calls returned an error; %ld times the window was "
      "decoded again\n",
      k - 1, forever ? "with all after them" : "once", failures, again);
  CHECK(k > 20 && failures > 20, "%ld allocations", k - 1);
  free(whole.state);
}

// Compacted, as before, or said to be lost and empty; another sequence that is there stays as it is.
static void every_engine_call_fails(const char *path, long times, bool beside) {
  long compacted = 0, unchanged = 0, lost = 0, k = 1;
  ckv_llama_model *model = load(path);
  for (bool fired = true; fired; k++) {
    ckv_llama_context *context = open_context(model);
    CHECK(prefill(context) == CKV_OK, "prefill");
    CHECK(!beside || prefill_sequence(context, 1, OTHERS) == CKV_OK, "prefill");
    int64_t bytes, other_bytes, now_bytes;
    uint8_t *before = state_of(context, &bytes);
    uint8_t *other = state_of_sequence(context, 1, &other_bytes);
    inject_engine(k, times);
    const ckv_status status = compress(context, CKV_METHOD_CHUNKKV);
    fired = inject_failed() != NULL;
    const char *const what = fired ? inject_failed() : "nothing";
    inject_engine(0, 1);
    if (status == CKV_OK) {
      compacted++;
      CHECK(ckv_llama_sequence_cells(context, 0) == BUDGET, "%s: %d cells", what,
            ckv_llama_sequence_cells(context, 0));
    } else if (strstr(ckv_llama_context_error(context), "lost")) {
      lost++;
      CHECK(ckv_llama_sequence_length(context, 0) == 0 && ckv_llama_sequence_cells(context, 0) == 0,
            "%s: not empty", what);
      CHECK(prefill(context) == CKV_OK && compress(context, CKV_METHOD_CHUNKKV) == CKV_OK,
            "%s: not to be used again", what);
    } else {
      unchanged++;
      CHECK(is_state(context, before, bytes), "%s: changed: %s", what,
            ckv_llama_context_error(context));
      CHECK(compress(context, CKV_METHOD_CHUNKKV) == CKV_OK, "%s: again: %s", what,
            ckv_llama_context_error(context));
    }
    uint8_t *now = state_of_sequence(context, 1, &now_bytes);
    CHECK(now_bytes == other_bytes && memcmp(now, other, (size_t)now_bytes) == 0,
          "%s: another sequence changed", what);
    free(now);
    free(other);
    free(before);
    ckv_llama_context_free(context);
  }
  ckv_llama_model_free(model);
  printf("bridge: %ld engine calls failed %ld times%s: %ld as before, %ld lost, %ld compacted\n",
         k - 2, times, beside ? " beside another sequence" : "", unchanged, lost, compacted);
  CHECK(unchanged > 2 && compacted >= 1, "%ld and %ld", unchanged, compacted);
}

// The memory of a device is out, where the bridge works on one.
static void every_device_allocation_fails(const char *path) {
  ckv_llama_model *model = load(path);
  long k = 0;
  for (long failed_before = failures = 0; k == 0 || failures > failed_before; k++) {
    ckv_llama_context *context = open_context(model);
    CHECK(prefill(context) == CKV_OK, "prefill");
    failed_before = failures;
    char number[24];
    snprintf(number, sizeof number, "%ld", k);
    setenv("CHUNKKV_FAKE_ALLOCATIONS", number, 1);
    compress_or_not(context, CKV_METHOD_CHUNKKV);
    unsetenv("CHUNKKV_FAKE_ALLOCATIONS");
    CHECK(ckv_llama_sequence_cells(context, 0) == BUDGET, "%ld", k);
    ckv_llama_context_free(context);
  }
  printf("bridge: %ld allocations of device memory failed, %ld calls returned an error\n", k - 1,
         failures);
  ckv_llama_model_free(model);
}

// A prompt goes in whole, or not at all.
static void a_prompt_fails_at_every_call(const char *path) {
  ckv_llama_model *model = load(path);
  ckv_llama_context *context = open_context(model);
  long k = 1;
  for (bool fired = true; fired; k++) {
    inject_engine(k, 1);
    const ckv_status status = prefill(context);
    fired = inject_failed() != NULL;
    inject_engine(0, 1);
    CHECK(ckv_llama_sequence_length(context, 0) == (status ? 0 : PROMPT), "call %ld", k);
    CHECK(ckv_llama_sequence_cells(context, 0) == (status ? 0 : PROMPT), "call %ld", k);
    CHECK(ckv_llama_sequence_remove(context, 0, 0, -1) == CKV_OK, "remove");
  }
  CHECK(k > 2, "no call failed");
  ckv_llama_context_free(context);
  ckv_llama_model_free(model);
}

int main(int argc, char **argv) {
  test_begin("bridge_fault_test");
  if (argc != 5) return fprintf(stderr, "Expected LIBLLAMA FOLDER MODEL SLIDING_MODEL\n"), 2;
  engine = ckv_llama_engine_new();
  CHECK(engine && ckv_llama_engine_open(engine, argv[1], argv[2]) == CKV_OK, "%s",
        ckv_llama_engine_error(engine));
  for (int32_t i = 0; i < PROMPT; i++) prompt[i] = i * 37 % 89 + 3;
  for (int i = 3; i < argc; i++) {
    every_allocation_fails_once(argv[i], false);
    every_allocation_fails_once(argv[i], true);
    for (int beside = 0; beside < 2; beside++) {
      every_engine_call_fails(argv[i], 1, beside);
      every_engine_call_fails(argv[i], 2, beside);
      every_engine_call_fails(argv[i], 1000, beside);
    }
    a_prompt_fails_at_every_call(argv[i]);
    every_device_allocation_fails(argv[i]);
  }
  ckv_llama_engine_free(engine);
  return test_end();
}
