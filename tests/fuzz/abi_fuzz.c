// Every function of chunkkv.h with hostile arguments: a status, never a fault; what fails has moved
// no row; what succeeds keeps its promises.
#include <stdbool.h>

#include "call.h"

#define CONTEXTS 6

// One per instruction set, with one and with three threads.
static ckv_context *context_for(uint8_t number) {
  static ckv_context *contexts[CONTEXTS][2];
  const int32_t isa = number % CONTEXTS, threaded = number / CONTEXTS % 2;
  ckv_context **context = &contexts[isa][threaded];
  ckv_context_params params;
  ckv_context_default_params(&params);
  params.num_threads = threaded ? 3 : 1;
  params.isa = ckv_isa_usable(isa) ? isa : CKV_ISA_SERIAL;
  if (!*context) {
    PROMISE(ckv_context_create(&params, context) == CKV_OK, "isa %d", params.isa);
  }
  return *context;
}

static void check_status(const ckv_context *context, ckv_status status) {
  PROMISE(ckv_status_name(status), "status %d", status);
  PROMISE((status == CKV_OK) == (ckv_context_error(context)[0] == '\0'), "status %d, \"%s\"",
          status, ckv_context_error(context));
}

// Indices that were chosen rise inside the sequence and fit the budget.
static void check_chosen(const call *c, const ckv_scores *scores) {
  for (int32_t b = 0; b < c->kept.batch; b++) {
    const int32_t n = scores->kv_lens ? scores->kv_lens[b] : scores->kv_len;
    const int32_t len = c->kept.lens[b];
    PROMISE(len >= 0 && len <= n && len <= c->kept.capacity, "%d of %d", len, n);
    for (int32_t h = 0; h < c->kept.num_heads; h++) {
      const int32_t *set =
          c->kept.indices + ((int64_t)b * c->kept.num_heads + h) * c->kept.capacity;
      for (int32_t i = 0; i < len; i++) {
        PROMISE(set[i] < n && set[i] > (i ? set[i - 1] : -1), "index %d of %d", set[i], n);
      }
    }
  }
}

static void names(input *in) {
  const int32_t a = (int32_t)take_odd_number(in), b = (int32_t)take_odd_number(in);
  PROMISE(ckv_abi_version() == CKV_ABI_VERSION && ckv_version(), "version");
  (void)ckv_status_name(a);
  (void)ckv_method_name(a);
  (void)ckv_dtype_name(a);
  PROMISE(!ckv_isa_usable(a) || ckv_isa_name(a), "isa %d", a);
  PROMISE(ckv_row_bytes(a, b) >= -1, "row of %d", b);
  double keep;
  take(in, &keep, sizeof keep);
  const int32_t budget = ckv_budget_for(keep, b);
  PROMISE(budget == -1 || (budget >= 1 && (budget <= b || budget == 1)), "%d of %d", budget, b);
  ckv_params params;
  ckv_default_params(&params);
  ckv_default_params(NULL);
  params.method = a;
  params.budget = b;
  (void)ckv_score_heads(&params, b);
  (void)ckv_kept_heads(NULL, b);
  const int32_t layer = (int32_t)take_odd_number(in), layers = (int32_t)take_odd_number(in);
  (void)ckv_layer_budget(&params, b, layer, layers);
  PROMISE(ckv_layer_budget(NULL, b, layer, layers) == -1, "a budget without params");
  PROMISE(ckv_kept_capacity(&params, b) <= (b > 0 ? b : 0), "capacity for %d", b);
}

static void contexts(input *in) {
  ckv_context_params params;
  ckv_context_default_params(NULL);
  ckv_context_default_params(&params);
  params.num_threads = take_in(in, 0, 3);
  for (int32_t faults = take_in(in, 0, 2); faults > 0; faults--) {
    const int32_t field = take_in(in, 0, 5);
    const uint32_t number = (uint32_t)take_odd_number(in);
    // So many threads are what was asked for.
    if (field != 1 || (int32_t)number > 1024 || (int32_t)number < 4) {
      memcpy((char *)&params + 4 * field, &number, sizeof number);
    }
  }
  ckv_context *context = (ckv_context *)&params;
  const ckv_status status = ckv_context_create(&params, &context);
  PROMISE((status == CKV_OK) == (context != NULL), "status %d", status);
  (void)ckv_context_isa(context);
  (void)ckv_context_num_threads(context);
  (void)ckv_context_device(context);
  PROMISE(ckv_context_error(context), "no text");
  ckv_context_free(context);
  PROMISE(ckv_context_create(NULL, &context) == CKV_ERROR_INVALID_ARGUMENT, "NULL");
}

// What a context of the CPU refuses, and the device's text.
static void devices(input *in, ckv_context *context) {
  const int64_t bytes = take_in(in, 0, 255);
  char *text = exactly((size_t)bytes, 1);
  const int32_t device = (int32_t)take_odd_number(in), index = (int32_t)take_odd_number(in);
  const ckv_status status = ckv_device_describe(device, index, text, bytes);
  PROMISE(ckv_status_name(status), "status %d", status);
  if (status == CKV_OK) PROMISE(memchr(text, 0, (size_t)bytes), "no end");
  int32_t place = -1, number = -1;
  PROMISE(ckv_device_find(text, &place, &number) == CKV_OK && place == CKV_CPU && number == 0,
          "device %d", place);
  PROMISE(ckv_device_find(text, NULL, &number) == CKV_ERROR_INVALID_ARGUMENT, "NULL");
  void *memory = text;
  const int64_t odd = take_odd_number(in);
  PROMISE(ckv_context_set_stream(context, text) == CKV_ERROR_UNSUPPORTED, "stream");
  PROMISE(ckv_context_set_workspace(context, text, odd) == CKV_ERROR_UNSUPPORTED, "workspace");
  PROMISE(ckv_device_alloc(context, odd, &memory) != CKV_OK && !memory, "alloc");
  PROMISE(ckv_device_alloc(context, odd, NULL) != CKV_OK, "alloc");
  PROMISE(ckv_device_free(context, text) == CKV_ERROR_UNSUPPORTED, "free");
  PROMISE(ckv_device_copy(context, text, text, odd, index) != CKV_OK, "copy");
  PROMISE(ckv_context_finish(context) == CKV_OK, "finish");
  free(text);
}

static void stage(input *in, ckv_context *context, int32_t which) {
  call c;
  call_make(&c, in);
  // Any of them may be missing.
  const uint8_t missing = take_u8(in);
  const ckv_params *params = missing == 1 ? NULL : &c.params;
  const ckv_kv_view *keys = missing == 2 ? NULL : &c.keys;
  const ckv_query_view *queries = missing == 3 ? NULL : &c.queries;
  ckv_scores *scores = missing == 4 ? NULL : &c.scores;
  ckv_kept *kept = missing == 5 ? NULL : &c.kept;
  ckv_layer layers[] = {c.layer, c.layer};
  const int32_t num_layers = missing == 6 ? -1 : missing == 7 ? 0 : 1;
  ckv_status status = CKV_OK;
  if (which == 0) {
    status = ckv_score(context, params, queries, keys, scores);
    PROMISE(call_rows_are_unchanged(&c), "scoring wrote to rows");
  } else if (which == 1) {
    const int64_t room = take_in(in, 0, 255);
    float *chunks = exactly(sizeof(float) * (size_t)room, 1);
    float *const out = missing == 8 ? NULL : chunks;
    status = missing & 1 ? ckv_score_chunks(context, params, queries, keys, out, room)
                         : ckv_chunk_scores(context, params, scores, out, room);
    free(chunks);
  } else if (which == 2) {
    status = ckv_select(context, params, scores, kept);
    if (status == CKV_OK) check_chosen(&c, &c.scores);
  } else if (which == 3) {
    const ckv_kv_view *dst = missing & 64 ? NULL : missing & 128 ? keys : &c.dst;
    status = ckv_compact(context, keys, dst, kept);
    if (status != CKV_OK) PROMISE(call_rows_are_unchanged(&c), "%s", ckv_context_error(context));
  } else if (which == 4) {
    layers[0].struct_size += missing == 9;
    status = ckv_compress(context, params, missing == 10 ? NULL : layers, num_layers, kept);
    if (status != CKV_OK) PROMISE(call_rows_are_unchanged(&c), "%s", ckv_context_error(context));
  } else if (which == 6) {
    layers[0].struct_size += missing == 9;
    status = ckv_select_layers(context, params, missing == 10 ? NULL : layers, num_layers, kept);
    PROMISE(call_rows_are_unchanged(&c), "selecting wrote to rows");
  } else if (which == 7) {
    layers[0].struct_size += missing == 9;
    status = ckv_compact_layers(context, missing == 10 ? NULL : layers, num_layers, kept);
    if (status != CKV_OK) PROMISE(call_rows_are_unchanged(&c), "%s", ckv_context_error(context));
  } else {
    int64_t bytes = -1;
    status = ckv_workspace_size(context, params, layers, num_layers, missing == 11 ? NULL : &bytes);
    PROMISE(status != CKV_OK || bytes == 0, "%lld bytes", (long long)bytes);
    int64_t best = -1;
    PROMISE(ckv_workspace_best(context, params, layers, num_layers, missing == 11 ? NULL : &best) ==
                status,
            "another status");
    PROMISE(status != CKV_OK || best == 0, "%lld bytes", (long long)best);
  }
  check_status(context, status);
  call_free(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input in = {data, size};
  const int32_t which = take_in(&in, 0, 31);
  ckv_context *context = context_for(take_u8(&in));
  if (which == 29) names(&in);
  if (which == 30) contexts(&in);
  if (which == 31) devices(&in, context);
  if (which < 29) stage(&in, context, which % 8);
  return 0;
}
