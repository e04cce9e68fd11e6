// libchunkkv while each of its allocations fails in turn, its threads and its device memory among
// them: an error or a success, no row moved by what fails, nothing leaked; done again, it succeeds.
#include <string.h>

#include "../csrc/test.h"
#include "chunkkv.h"
#include "inject.h"

enum { BATCH = 2, HEADS = 2, TOKENS = 200, DIM = 32, WINDOW = 8, BUDGET = 50, BLOCK = 4 };
enum { ROW_FLOATS = BATCH * HEADS * TOKENS * DIM, BLOCKS = BATCH * TOKENS / BLOCK };

static float queries[BATCH * HEADS * WINDOW * DIM], rows[2][ROW_FLOATS], before[2][ROW_FLOATS];
static float expected[2][ROW_FLOATS], copy[ROW_FLOATS], scores[BATCH * HEADS * TOKENS];
static int32_t indices[2][BATCH * HEADS * BUDGET], lens[2][BATCH], table[BLOCKS], other[BLOCKS];
static ckv_context *context;
static long failures;

static const ckv_query_view QUERIES = {.struct_size = sizeof QUERIES,
                                       .batch = BATCH,
                                       .num_q_heads = HEADS,
                                       .window = WINDOW,
                                       .head_dim = DIM,
                                       .data = queries,
                                       .size_bytes = sizeof queries,
                                       .stride_batch = HEADS * WINDOW * DIM * 4,
                                       .stride_head = WINDOW * DIM * 4,
                                       .stride_row = DIM * 4};

// Blocks that do not rise: that each is there once takes memory to check.
static ckv_kv_view view(float *data, const int32_t *blocks) {
  return (ckv_kv_view){.struct_size = sizeof(ckv_kv_view),
                       .device = ckv_context_device(context),
                       .batch = BATCH,
                       .num_kv_heads = HEADS,
                       .head_dim = DIM,
                       .kv_len = TOKENS,
                       .block_size = BLOCK,
                       .data = data,
                       .size_bytes = sizeof rows[0],
                       .stride_head = DIM * 4,
                       .stride_token = HEADS * DIM * 4,
                       .stride_block = BLOCK * HEADS * DIM * 4,
                       .block_table = blocks,
                       .max_blocks = TOKENS / BLOCK,
                       .num_blocks = BLOCKS};
}

static void set_up(void) {
  uint32_t state = 1;
  for (int32_t l = 0; l < 2; l++) {
    for (int32_t i = 0; i < ROW_FLOATS; i++) {
      state = state * 1664525u + 1013904223u;
      rows[l][i] = (float)(state >> 8) * 0x1p-24f;
    }
  }
  for (size_t i = 0; i < sizeof queries / sizeof *queries; i++) queries[i] = rows[0][3 * i];
  for (int32_t i = 0; i < BLOCKS; i++) {
    table[i] = BLOCKS - 1 - i;
    other[i] = i;
  }
  memcpy(before, rows, sizeof rows);
}

static ckv_kept kept_of(int32_t l, int32_t heads) {
  return (ckv_kept){sizeof(ckv_kept), BATCH, heads, BUDGET, indices[l], lens[l]};
}

static ckv_params params_of(int32_t method) {
  ckv_params params;
  ckv_default_params(&params);
  params.method = method;
  params.window = WINDOW;
  params.budget = BUDGET;
  return params;
}

static ckv_status score(int32_t method) {
  const ckv_params params = params_of(method);
  const ckv_kv_view keys = view(rows[0], table);
  ckv_query_view q = QUERIES;
  q.device = keys.device;
  const int32_t heads = ckv_score_heads(&params, HEADS);
  ckv_scores s = {sizeof s, BATCH, heads, TOKENS, NULL, scores, BATCH * heads * TOKENS};
  ckv_kept kept = kept_of(0, ckv_kept_heads(&params, HEADS));
  const ckv_status status = ckv_score(context, &params, &q, &keys, &s);
  return status ? status : ckv_select(context, &params, &s, &kept);
}

static ckv_status copy_out(int32_t method) {
  (void)method;
  const ckv_kv_view src = view(rows[0], table), dst = view(copy, other);
  const ckv_kept kept = kept_of(0, 1);
  return ckv_compact(context, &src, &dst, &kept);
}

static bool in_halves;  // ckv_compress, or its two halves

static ckv_status compress(int32_t method) {
  const ckv_params params = params_of(method);
  const ckv_kv_view keys[2] = {view(rows[0], table), view(rows[1], table)};
  ckv_query_view q = QUERIES;
  q.device = keys[0].device;
  const ckv_layer layers[2] = {{sizeof *layers, 0, &q, &keys[0], NULL},
                               {sizeof *layers, 0, &q, &keys[1], NULL}};
  const int32_t heads = ckv_kept_heads(&params, HEADS);
  ckv_kept kept[2] = {kept_of(0, heads), kept_of(1, heads)};
  ckv_status status;
  if (in_halves) {
    status = ckv_select_layers(context, &params, layers, 2, kept);
    if (!status) status = ckv_compact_layers(context, layers, 2, kept);
  } else {
    status = ckv_compress(context, &params, layers, 2, kept);
  }
  return status ? status : ckv_context_finish(context);
}

// Made again without faults if it fails, and then it succeeds.
static void take(ckv_status (*call)(int32_t), int32_t method) {
  ckv_status status = call(method);
  if (status != CKV_OK) {
    failures++;
    CHECK(status == CKV_ERROR_OUT_OF_MEMORY && ckv_context_error(context)[0], "status %d: %s",
          status, ckv_context_error(context));
    CHECK(memcmp(rows, before, sizeof rows) == 0, "rows moved before %s failed", inject_failed());
    inject_allocation(0, false);
    unsetenv("CHUNKKV_FAKE_ALLOCATIONS");
    status = call(method);
  }
  CHECK(status == CKV_OK, "%s", ckv_context_error(context));
}

static void run(int32_t isa, int32_t device) {
  ckv_context_params params;
  ckv_context_default_params(&params);
  params.num_threads = device == CKV_CPU ? 3 : 1;
  params.isa = isa;
  params.device = device;
  set_up();
  ckv_status status = ckv_context_create(&params, &context);
  if (status != CKV_OK) {
    failures++;
    CHECK(status == CKV_ERROR_OUT_OF_MEMORY && !context, "status %d", status);
    inject_allocation(0, false);
    status = ckv_context_create(&params, &context);
  }
  CHECK(status == CKV_OK, "create");
  take(score, CKV_METHOD_SNAPKV);
  take(score, CKV_METHOD_CHUNKKV);
  if (device == CKV_CPU) take(copy_out, 0);
  take(compress, CKV_METHOD_SNAPKV);
  memcpy(before, rows, sizeof rows);
  in_halves = true;
  take(compress, CKV_METHOD_CHUNKKV);
  in_halves = false;
  ckv_context_free(context);
}

// Returns how many allocations a run makes.
static long every_allocation_fails(int32_t isa, int32_t device, bool forever) {
  inject_allocation(0, false);
  const long base = inject_live();
  run(isa, device);
  memcpy(expected, rows, sizeof rows);
  CHECK(inject_live() == base, "%ld left", inject_live() - base);
  long k = 1;
  for (bool fired = true; fired; k++) {
    inject_allocation(k, forever);
    run(isa, device);
    fired = inject_failed() != NULL;
    CHECK(memcmp(rows, expected, sizeof rows) == 0, "allocation %ld: another end", k);
    CHECK(inject_live() == base, "allocation %ld: %ld left", k, inject_live() - base);
  }
  return k - 2;
}

// The same of the device's memory, in a library that computes on the CPU.
static long every_device_allocation_fails(void) {
  long k = 0;
  for (bool fired = true; fired; k++) {
    char number[16];
    const long failed_before = failures;
    snprintf(number, sizeof number, "%ld", k);
    setenv("CHUNKKV_FAKE_ALLOCATIONS", number, 1);
    run(CKV_ISA_BEST, CKV_CUDA);
    fired = failures > failed_before;
    unsetenv("CHUNKKV_FAKE_ALLOCATIONS");
    CHECK(memcmp(rows, expected, sizeof rows) == 0, "device allocation %ld: another end", k);
  }
  return k - 1;
}

int main(void) {
  test_begin("library_fault_test");
  long cpu = 0;
  for (int32_t forever = 0; forever < 2; forever++) {
    cpu += every_allocation_fails(CKV_ISA_SERIAL, CKV_CPU, forever);
    cpu += every_allocation_fails(CKV_ISA_BEST, CKV_CPU, forever);
  }
  printf("library: %ld allocations failed, %ld calls returned an error\n", cpu, failures);
  CHECK(cpu > 30 && failures > 30, "%ld allocations", cpu);
  failures = 0;
  long cuda = every_allocation_fails(CKV_ISA_BEST, CKV_CUDA, false);
  cuda += every_allocation_fails(CKV_ISA_BEST, CKV_CUDA, true);
  const long device = every_device_allocation_fails();
  printf(
      "library: %ld allocations of a CUDA context and %ld of device memory failed, %ld calls "
      "returned an error\n",
      cuda, device, failures);
  CHECK(cuda > 2 && device > 0, "%ld and %ld", cuda, device);
  return test_end();
}
