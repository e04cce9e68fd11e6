// The ABI's promises: hostile arguments get a status and a text, and move nothing.
#include <limits.h>
#include <math.h>
#include <string.h>

#include "chunkkv.h"
#include "test.h"

#define HEADS 2
#define DIM 32
#define TOKENS 96
#define WINDOW 8

static float keys[HEADS * TOKENS * DIM], queries[2 * HEADS * WINDOW * DIM], token_scores[TOKENS];
static unsigned char before[sizeof keys];
static int32_t indices[TOKENS], len[1], table[TOKENS];
static ckv_context *context;

typedef struct {
  ckv_params params;
  ckv_query_view q;
  ckv_kv_view k;
  ckv_scores scores;
  ckv_kept kept;
} call;

static call valid_call(void) {
  call c;
  memset(&c, 0, sizeof c);
  ckv_default_params(&c.params);
  c.params.window = WINDOW;
  c.params.budget = 40;
  c.q = (ckv_query_view){.struct_size = sizeof c.q,
                         .batch = 1,
                         .num_q_heads = 2 * HEADS,
                         .window = WINDOW,
                         .head_dim = DIM,
                         .data = queries,
                         .size_bytes = sizeof queries,
                         .stride_batch = sizeof queries,
                         .stride_head = WINDOW * DIM * 4,
                         .stride_row = DIM * 4};
  c.k = (ckv_kv_view){.struct_size = sizeof c.k,
                      .batch = 1,
                      .num_kv_heads = HEADS,
                      .head_dim = DIM,
                      .kv_len = TOKENS,
                      .data = keys,
                      .size_bytes = sizeof keys,
                      .stride_batch = sizeof keys,
                      .stride_head = TOKENS * DIM * 4,
                      .stride_token = DIM * 4};
  c.scores = (ckv_scores){sizeof c.scores, 1, 1, TOKENS, NULL, token_scores, TOKENS};
  c.kept = (ckv_kept){sizeof c.kept, 1, 1, TOKENS, indices, len};
  return c;
}

static ckv_status compress(call *c) {
  const ckv_layer layer = {sizeof layer, 0, &c->q, &c->k, NULL};
  return ckv_compress(context, &c->params, &layer, 1, &c->kept);
}

static ckv_status score(call *c) {
  return ckv_score(context, &c->params, &c->q, &c->k, &c->scores);
}

// Every stage that sees the fault says so in words, and the keys stay as they were.
#define REFUSED(run, expected, words, ...)                                        \
  do {                                                                            \
    call c = valid_call();                                                        \
    __VA_ARGS__;                                                                  \
    memcpy(before, keys, sizeof keys);                                            \
    const ckv_status status = run(&c);                                            \
    CHECK(status == (expected), "%s: status %d, %s", #__VA_ARGS__, status,        \
          ckv_context_error(context));                                            \
    CHECK(strstr(ckv_context_error(context), words), "%s: %s", #__VA_ARGS__,      \
          ckv_context_error(context));                                            \
    CHECK(memcmp(before, keys, sizeof keys) == 0, "%s moved rows", #__VA_ARGS__); \
  } while (0)

static void settings_out_of_range(void) {
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "params.struct_size", c.params.struct_size = 4);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "method", c.params.method = 99);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "method", c.params.method = -1);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "budget", c.params.budget = 0);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "budget", c.params.budget = INT_MIN);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "window", c.params.window = 0);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "window", c.params.window = 65);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "chunk_size", c.params.chunk_size = 0);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "chunk_reduce", c.params.chunk_reduce = 3);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "fill", c.params.fill = 2);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "layer_reuse", c.params.layer_reuse = 0);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "pool_size", c.params.pool_size = 4);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "num_sinks", c.params.num_sinks = -1);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "spread", c.params.spread = 0);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "spread", c.params.spread = 65);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "scale", c.params.scale = NAN);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "softcap", c.params.logit_softcap = INFINITY);
}

static void views_that_lie(void) {
  REFUSED(score, CKV_ERROR_INVALID_ARGUMENT, "keys.struct_size", c.k.struct_size = 0);
  REFUSED(score, CKV_ERROR_INVALID_ARGUMENT, "keys.data", c.k.data = NULL);
  REFUSED(score, CKV_ERROR_INVALID_ARGUMENT, "keys.dtype", c.k.dtype = 77);
  REFUSED(score, CKV_ERROR_INVALID_ARGUMENT, "head_dim", c.k.head_dim = 40; c.k.dtype = CKV_Q8_0);
  REFUSED(score, CKV_ERROR_UNSUPPORTED, "CUDA", c.k.device = CKV_CUDA);
  REFUSED(score, CKV_ERROR_OUT_OF_BOUNDS, "bytes", c.k.size_bytes -= 1);
  REFUSED(score, CKV_ERROR_OUT_OF_BOUNDS, "bytes", c.k.stride_token = -128);
  REFUSED(score, CKV_ERROR_OUT_OF_BOUNDS, "bytes", c.k.stride_token = INT64_MAX);
  REFUSED(score, CKV_ERROR_OUT_OF_BOUNDS, "bytes", c.k.stride_head = INT64_MAX / 2);
  REFUSED(score, CKV_ERROR_INVALID_ARGUMENT, "kv_len", c.k.kv_len = -1);
  REFUSED(score, CKV_ERROR_INVALID_ARGUMENT, "batch", c.k.batch = -3);
  REFUSED(score, CKV_ERROR_INVALID_ARGUMENT, "batch", c.k.batch = (1 << 20) + 1; c.k.kv_len = 0);
  REFUSED(score, CKV_ERROR_INVALID_ARGUMENT, "kv_lens[0]", len[0] = TOKENS + 1; c.k.kv_lens = len);
  REFUSED(score, CKV_ERROR_INVALID_ARGUMENT, "block_table", c.k.block_size = 8);
  REFUSED(score, CKV_ERROR_OUT_OF_BOUNDS, "block_table[0][1]", c.k.block_size = 8;
          c.k.stride_block = 8 * DIM * 4; c.k.block_table = table; c.k.max_blocks = 12;
          c.k.num_blocks = 12; table[0] = 0; table[1] = 12);
  REFUSED(score, CKV_ERROR_INVALID_ARGUMENT, "queries.head_dim", c.q.head_dim = 64);
  REFUSED(score, CKV_ERROR_INVALID_ARGUMENT, "queries.window", c.q.window = 7);
  REFUSED(score, CKV_ERROR_INVALID_ARGUMENT, "num_q_heads", c.q.num_q_heads = 3);
  REFUSED(score, CKV_ERROR_INVALID_ARGUMENT, "queries.dtype", c.q.dtype = CKV_Q8_0);
  REFUSED(score, CKV_ERROR_OUT_OF_BOUNDS, "queries", c.q.size_bytes = 100);
  REFUSED(score, CKV_ERROR_INVALID_ARGUMENT, "scores.count", c.scores.count = TOKENS - 1);
  REFUSED(score, CKV_ERROR_INVALID_ARGUMENT, "scores.num_heads", c.scores.num_heads = 2);
  REFUSED(score, CKV_ERROR_INVALID_ARGUMENT, "method that has scores",
          c.params.method = CKV_METHOD_FULL);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "kept.capacity", c.kept.capacity = 39);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "share no bytes", c.k.stride_token = DIM * 2);
  REFUSED(compress, CKV_ERROR_INVALID_ARGUMENT, "block 3 twice", c.k.block_size = 8;
          c.k.stride_block = 8 * DIM * 4; c.k.block_table = table; c.k.max_blocks = 12;
          c.k.num_blocks = 12; for (int32_t i = 0; i < 12; i++) table[i] = i; table[7] = 3);
}

static ckv_status compact_kept(call *c) { return ckv_compact(context, &c->k, NULL, &c->kept); }

static void kept_that_lies(void) {
#define KEPT(a, b, n) indices[0] = a, indices[1] = b, len[0] = n
  REFUSED(compact_kept, CKV_ERROR_INVALID_ARGUMENT, "rise", KEPT(5, 5, 2));
  REFUSED(compact_kept, CKV_ERROR_INVALID_ARGUMENT, "rise", KEPT(5, 3, 2));
  REFUSED(compact_kept, CKV_ERROR_INVALID_ARGUMENT, "rise", KEPT(-1, 3, 2));
  REFUSED(compact_kept, CKV_ERROR_INVALID_ARGUMENT, "rise", KEPT(5, TOKENS, 2));
  REFUSED(compact_kept, CKV_ERROR_INVALID_ARGUMENT, "lens[0]", KEPT(1, 2, -1));
  REFUSED(compact_kept, CKV_ERROR_INVALID_ARGUMENT, "lens[0]", KEPT(1, 2, TOKENS + 1));
  REFUSED(compact_kept, CKV_ERROR_INVALID_ARGUMENT, "kept.batch", KEPT(1, 2, 2); c.kept.batch = 2);
#undef KEPT
}

static void numbers_that_are_none(void) {
  REFUSED(score, CKV_ERROR_NUMERIC, "NaN", keys[TOKENS * DIM / 2] = NAN);
  keys[TOKENS * DIM / 2] = 1;
  REFUSED(score, CKV_ERROR_NUMERIC, "NaN", queries[7] = NAN);
  queries[7] = 1;
}

// A destination that overlaps, is too short or of another kind.
static void destinations_that_do_not_fit(void) {
  call c = valid_call();
  ckv_kv_view dst = c.k;
  indices[0] = 3, indices[1] = 9, len[0] = 2;
  memcpy(before, keys, sizeof keys);
  CHECK(ckv_compact(context, &c.k, &dst, &c.kept) == CKV_ERROR_INVALID_ARGUMENT, "overlap");
  static float other[HEADS * TOKENS * DIM];
  dst.data = other;
  dst.kv_len = 1;
  CHECK(ckv_compact(context, &c.k, &dst, &c.kept) == CKV_ERROR_INVALID_ARGUMENT, "too short");
  dst = c.k;
  dst.data = other;
  dst.dtype = CKV_F16;
  CHECK(ckv_compact(context, &c.k, &dst, &c.kept) == CKV_ERROR_INVALID_ARGUMENT, "another dtype");
  CHECK(memcmp(before, keys, sizeof keys) == 0, "nothing moved");
}

static void contexts(void) {
  ckv_context_params params;
  ckv_context *made = (ckv_context *)&params;
  ckv_context_default_params(&params);
  params.struct_size = 1;
  CHECK(ckv_context_create(&params, &made) == CKV_ERROR_INVALID_ARGUMENT && !made, "struct_size");
  ckv_context_default_params(&params);
  params.num_threads = -1;
  CHECK(ckv_context_create(&params, &made) == CKV_ERROR_INVALID_ARGUMENT && !made, "threads");
  ckv_context_default_params(&params);
  params.isa = 99;
  CHECK(ckv_context_create(&params, &made) == CKV_ERROR_INVALID_ARGUMENT && !made, "isa");
  CHECK(ckv_context_create(NULL, &made) == CKV_ERROR_INVALID_ARGUMENT, "NULL params");
  CHECK(ckv_context_create(&params, NULL) == CKV_ERROR_INVALID_ARGUMENT, "NULL out");
  for (int32_t isa = 0; ckv_isa_name(isa); isa++) {
    if (ckv_isa_usable(isa)) continue;
    params.isa = isa;
    CHECK(ckv_context_create(&params, &made) == CKV_ERROR_UNSUPPORTED, "%s", ckv_isa_name(isa));
  }
  ckv_context_free(NULL);
  CHECK(ckv_score(NULL, NULL, NULL, NULL, NULL) == CKV_ERROR_INVALID_ARGUMENT, "NULL context");
  CHECK(ckv_score(context, NULL, NULL, NULL, NULL) == CKV_ERROR_INVALID_ARGUMENT, "all NULL");
  CHECK(ckv_compress(context, NULL, NULL, 3, NULL) == CKV_ERROR_INVALID_ARGUMENT, "all NULL");
  CHECK(!ckv_status_name(-1) && !ckv_status_name(1000) && !ckv_method_name(1000), "past the end");
  CHECK(ckv_abi_version() == CKV_ABI_VERSION, "version");
}

int main(void) {
  test_begin("abi");
  ckv_context_params params;
  ckv_context_default_params(&params);
  params.num_threads = 2;
  if (ckv_context_create(&params, &context) != CKV_OK) return 1;
  for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) keys[i] = test_float() - 0.5f;
  for (size_t i = 0; i < sizeof queries / sizeof queries[0]; i++) queries[i] = test_float() - 0.5f;
  settings_out_of_range();
  views_that_lie();
  kept_that_lies();
  numbers_that_are_none();
  destinations_that_do_not_fit();
  contexts();
  ckv_context_free(context);
  return test_end();
}
