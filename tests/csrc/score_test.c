// score: every kernel x dtype x usable ISA against float64 on fresh random problems.
#include "score/score.h"
#include "context.h"
#include "dispatch.h"
#include "score_case.h"
#include "tolerances.h"

static const int32_t HEAD_DIMS[] = {40, 64, 80, 96, 128, 256, 1, 3, 33, 61};

static ckv_context *context_of(int32_t isa, int32_t threads) {
  ckv_context_params params;
  ckv_context_default_params(&params);
  params.isa = isa;
  params.num_threads = threads;
  ckv_context *context = NULL;
  if (ckv_context_create(&params, &context) != CKV_OK) exit(3);
  return context;
}

static int32_t random_len(int32_t window) {
  const int32_t edges[] = {1, window - 1, window, window + 1, 95 + window, 96, 97, 192, 193, 6};
  const int32_t pick = test_int(0, 19);
  const int32_t n = pick < 10 ? edges[pick] : test_int(1, 600);
  return n < 1 ? 1 : n;
}

// Sizes and dtypes are set by the caller where they are not -1.
static score_case random_case(int32_t key_dtype, int32_t query_dtype) {
  score_case c = {.key_dtype = key_dtype, .query_dtype = query_dtype};
  const bool blocks = ckv_row_bytes(key_dtype, 1) < 0;
  c.batch = test_int(0, 2) ? 1 : 3;
  c.kv_heads = test_int(1, 3);
  c.group = test_int(1, 8);
  c.window = test_int(0, 1) ? test_int(1, 64) : 32;
  do c.head_dim = HEAD_DIMS[test_int(0, 9)];
  while (blocks && c.head_dim % 32);
  c.layout = test_int(0, LAYOUTS - 1);
  c.values = test_int(0, 2) ? NORMAL : test_int(0, VALUES - 1);
  c.kv_lens = case_alloc(sizeof(int32_t) * (size_t)c.batch);
  for (int32_t b = 0; b < c.batch; b++) {
    c.kv_lens[b] = b == 1 ? 0 : random_len(c.window);
    if (c.kv_lens[b] > c.kv_len) c.kv_len = c.kv_lens[b];
  }
  c.params = (ckv_params){.struct_size = sizeof c.params, .window = c.window};
  if (test_int(0, 3) == 0) c.params.scale = 0.1f + test_float();
  if (test_int(0, 4) == 0) c.params.logit_softcap = 5.0f + 50.0f * test_float();
  return c;
}

static void case_make(score_case *c) {
  case_layout(c);
  case_values(c);
  case_encode(c);
  c->mass = case_alloc(sizeof(double) * (size_t)(c->batch * c->kv_heads) * (size_t)c->kv_len);
  case_solve(c);
}

static float *masses(const score_case *c) {
  return case_alloc(sizeof(float) * (size_t)(c->batch * c->kv_heads) * (size_t)c->kv_len);
}

static void describe(const score_case *c, int32_t isa, char *text, size_t size) {
  snprintf(text, size,
           "%s %s q %s batch %d heads %d x %d window %d dim %d n %d layout %d values %d "
           "cap %g%s",
           ckv_isa_name(isa), ckv_dtype_name(c->key_dtype), ckv_dtype_name(c->query_dtype),
           c->batch, c->kv_heads, c->group, c->window, c->head_dim, c->kv_len, c->layout, c->values,
           (double)c->params.logit_softcap, c->lse ? " lse" : "");
}

// The worst error in units of its bound.
static double worst_error(const score_case *c, int32_t isa, const float *mass) {
  double worst = 0;
  for (int64_t p = 0; p < c->batch * c->kv_heads; p++) {
    for (int32_t t = 0; t < c->kv_len; t++) {
      const double want = c->mass[p * c->kv_len + t], found = (double)mass[p * c->kv_len + t];
      const int rows = c->group * c->window;
      const double cap = (double)c->params.logit_softcap;
      const double bound =
          isa == CKV_ISA_SERIAL
              ? serial_mass_tolerance(want, c->largest, c->head_dim, rows, c->kv_len, cap)
              : mass_tolerance(want, c->largest, c->head_dim, rows, cap);
      if (t >= c->kv_lens[p / c->kv_heads] - c->window && found != 0) return INFINITY;
      const double error = fabs(found - want) / bound;
      if (!(error <= worst)) worst = isnan(error) ? INFINITY : error;
    }
  }
  return worst;
}

static double worst_ratio;  // of an ISA's errors to their bounds

static void check_case(const score_case *c, int32_t isa) {
  char text[256];
  describe(c, isa, text, sizeof text);
  float *mass = masses(c), *again = masses(c);
  const size_t bytes = sizeof(float) * (size_t)(c->batch * c->kv_heads) * (size_t)c->kv_len;
  for (int32_t threads = 1; threads <= 3; threads++) {
    ckv_context *context = context_of(isa, threads);
    float *out = threads == 1 ? mass : again;
    memset(out, 0xff, bytes);
    const ckv_status status = ckv_score_mass(context, &c->params, &c->queries, &c->keys, out);
    CHECK(status == CKV_OK, "%s: %s", text, context->error);
    if (threads > 1) {
      CHECK(memcmp(mass, again, bytes) == 0, "%s: %d threads give other bits", text, threads);
    }
    ckv_context_free(context);
  }
  const double error = worst_error(c, isa, mass);
  CHECK(error <= 1, "%s: %g of the bound", text, error);
  worst_ratio = fmax(worst_ratio, error);
  free(mass);
  free(again);
}

static void every_kernel_matches_float64(int32_t isa, int32_t rounds) {
  for (int32_t round = 0; round < rounds; round++) {
    for (int32_t dtype = 0; ckv_dtype_name(dtype); dtype++) {
      for (int32_t query_dtype = CKV_F32; query_dtype <= CKV_BF16; query_dtype++) {
        score_case c = random_case(dtype, query_dtype);
        if (test_int(0, 2) == 0) {
          c.lse = case_alloc(sizeof(float) * (size_t)(c.batch * c.kv_heads * c.group * c.window));
        }
        case_make(&c);
        if (c.lse) {  // solve again with the rounded norms
          c.queries.log_sum_exp = c.lse;
          case_solve(&c);
        }
        check_case(&c, isa);
        case_free(&c);
      }
    }
  }
}

// More rows than are scored at once, more tokens than fit into one wave, more heads than a wave.
static void large_sizes_match_float64(int32_t isa) {
  for (int32_t kind = 0; kind < 4; kind++) {
    score_case c = random_case(CKV_F32, CKV_F32);
    c.batch = kind == 2 ? 300 : 1;
    c.kv_heads = 1;
    c.group = kind < 2 ? 9 : 1;
    c.window = kind < 2 ? 64 : 2;
    c.head_dim = 2;
    c.values = NORMAL;
    c.kv_len = kind == 0 ? 15013 : kind == 1 ? 700 : kind == 2 ? 5 : 50021;
    c.kv_lens = realloc(c.kv_lens, sizeof(int32_t) * (size_t)c.batch);
    if (!c.kv_lens) exit(3);
    for (int32_t b = 0; b < c.batch; b++) c.kv_lens[b] = c.kv_len;
    if (kind == 1) c.lse = case_alloc(sizeof(float) * 9 * 64);
    case_make(&c);
    if (c.lse) {
      c.queries.log_sum_exp = c.lse;
      case_solve(&c);
    }
    check_case(&c, isa);
    case_free(&c);
  }
}

// One row of one element with norm 0: every token's mass is 2^x itself.
static void exponentials_are_accurate(int32_t isa) {
  enum { N = 200000 };
  score_case c = {.batch = 1, .kv_heads = 1, .group = 1, .window = 1, .head_dim = 1, .kv_len = N};
  c.kv_lens = case_alloc(sizeof(int32_t));
  c.kv_lens[0] = N;
  c.params = (ckv_params){.struct_size = sizeof c.params, .window = 1, .scale = 1};
  case_layout(&c);
  case_values(&c);
  c.query[0] = 1;
  const double range = test_int(0, 1) ? 2 : 88;
  for (int32_t t = 0; t < N; t++) c.key[t] = (double)(float)(-range * (double)test_float());
  case_encode(&c);
  const float zero = 0;
  c.queries.log_sum_exp = &zero;
  float *mass = masses(&c);
  ckv_context *context = context_of(isa, 1);
  CHECK(ckv_score_mass(context, &c.params, &c.queries, &c.keys, mass) == CKV_OK, "%s",
        context->error);
  double worst = 0;
  for (int32_t t = 0; t < N - 1; t++) {
    worst = fmax(worst, fabs((double)mass[t] - exp(c.key[t])) / exp_tolerance(c.key[t]));
  }
  CHECK(worst <= 1, "%s: %g of the bound", ckv_isa_name(isa), worst);
  CHECK(mass[N - 1] == 0, "%s: the window has no score", ckv_isa_name(isa));
  ckv_context_free(context);
  free(mass);
  case_free(&c);
}

static score_case small_case(int32_t dtype) {
  score_case c = random_case(dtype, CKV_F32);
  c.values = NORMAL;
  c.params.logit_softcap = 0;
  c.kv_len = 0;
  for (int32_t b = 0; b < c.batch; b++) {
    c.kv_lens[b] = c.window + test_int(1, 300);
    if (c.kv_lens[b] > c.kv_len) c.kv_len = c.kv_lens[b];
  }
  return c;
}

static void expect_fault(const score_case *c, int32_t isa, int32_t b, int32_t head, int32_t row,
                         const char *found) {
  char text[160];
  snprintf(text, sizeof text, "found %s in sequence %d, query head %d, window row %d", found, b,
           head, row);
  ckv_context *context = context_of(isa, test_int(1, 2));
  float *mass = masses(c);
  const ckv_status status = ckv_score_mass(context, &c->params, &c->queries, &c->keys, mass);
  CHECK(status == CKV_ERROR_NUMERIC, "%s: status %d", ckv_isa_name(isa), status);
  CHECK(strstr(context->error, text), "%s: \"%s\" does not say \"%s\"", ckv_isa_name(isa),
        context->error, text);
  free(mass);
  ckv_context_free(context);
}

static void nan_in_a_key_is_reported(int32_t isa, int32_t dtype) {
  score_case c = small_case(dtype);
  case_make(&c);
  const int32_t b = test_int(0, c.batch - 1), g = test_int(0, c.kv_heads - 1);
  const int32_t t = test_int(0, c.kv_lens[b] - 1);
  const bool blocks = ckv_row_bytes(dtype, 1) < 0;
  const int32_t element = test_int(0, c.head_dim - 1);
  case_key(&c, b, g, t)[blocks ? element / 32 * 32 : element] = NAN;
  case_encode(&c);
  const int32_t row = t - (c.kv_lens[b] - c.window);  // the first window row that sees t
  expect_fault(&c, isa, b, g * c.group, row < 0 ? 0 : row, "NaN or infinity");
  case_free(&c);
}

static void nan_in_a_query_is_reported(int32_t isa) {
  score_case c = small_case(CKV_F16);
  case_make(&c);
  const int32_t b = test_int(0, c.batch - 1), i = test_int(0, c.window - 1);
  const int32_t h = test_int(0, c.kv_heads * c.group - 1);
  case_query(&c, b, h, i)[test_int(0, c.head_dim - 1)] = NAN;
  case_encode(&c);
  expect_fault(&c, isa, b, h, i, "NaN or infinity");
  float lse[3 * 3 * 8 * 64] = {0};
  c.queries.log_sum_exp = lse;
  expect_fault(&c, isa, b, h, i, "NaN or infinity");
  case_free(&c);
}

// Element 0 of all queries is positive: -infinity there hides a token from all rows.
static void negative_infinity_hides_a_token(int32_t isa) {
  score_case c = small_case(CKV_F16 * test_int(0, 1));
  case_layout(&c);
  case_values(&c);
  for (int32_t b = 0; b < c.batch; b++) {
    for (int32_t h = 0; h < c.kv_heads * c.group; h++) {
      for (int32_t i = 0; i < c.window; i++)
        case_query(&c, b, h, i)[0] = 0.5 + (double)test_float();
    }
    for (int32_t t = 0; t < c.kv_lens[b] - c.window; t++) {
      if (test_int(0, 1) || t < 96) case_key(&c, b, 0, t)[0] = -INFINITY;
    }
  }
  case_encode(&c);
  c.mass = case_alloc(sizeof(double) * (size_t)(c.batch * c.kv_heads) * (size_t)c.kv_len);
  case_solve(&c);
  check_case(&c, isa);
  const int32_t b = test_int(0, c.batch - 1);  // now a whole head of it
  for (int32_t t = 0; t < c.kv_lens[b]; t++) case_key(&c, b, 0, t)[0] = -INFINITY;
  case_encode(&c);
  expect_fault(&c, isa, b, 0, 0, "none");
  case_free(&c);
}

static void bad_log_sum_exp_is_reported(int32_t isa) {
  score_case c = small_case(CKV_F32);
  case_make(&c);
  float lse[3 * 3 * 8 * 64] = {0};
  const int32_t h = test_int(0, c.kv_heads * c.group - 1), i = test_int(0, c.window - 1);
  lse[h * c.window + i] = test_int(0, 1) ? NAN : -INFINITY;
  c.queries.log_sum_exp = lse;
  expect_fault(&c, isa, 0, h, i, "NaN or infinity");
  case_free(&c);
}

int main(void) {
  test_begin("score");
  const char *rounds = getenv("CKV_TEST_ROUNDS");
  for (int32_t isa = 0; ckv_isa_name(isa); isa++) {
    if (!ckv_isa_usable(isa)) continue;
    const int before = test_passed;
    worst_ratio = 0;
    every_kernel_matches_float64(isa, rounds ? atoi(rounds) : 3);
    large_sizes_match_float64(isa);
    exponentials_are_accurate(isa);
    for (int32_t dtype = 0; ckv_dtype_name(dtype); dtype++) nan_in_a_key_is_reported(isa, dtype);
    nan_in_a_query_is_reported(isa);
    negative_infinity_hides_a_token(isa);
    bad_log_sum_exp_is_reported(isa);
    printf("%s: %d checks, worst error %.3f of its bound\n", ckv_isa_name(isa),
           test_passed - before, worst_ratio);
  }
  return test_end();
}
