// The preloaded library's settings with any text in the environment: what is taken lies in range,
// what is not turns compression off.
#include "settings.c"

#include "input.h"

static const char *const NAMES[] = {
    "CHUNKKV_KEEP",         "CHUNKKV_BUDGET",  "CHUNKKV_METHOD",     "CHUNKKV_CHUNK_SIZE",
    "CHUNKKV_WINDOW",       "CHUNKKV_REUSE",   "CHUNKKV_MIN_TOKENS", "CHUNKKV_DECODE_BUDGET",
    "CHUNKKV_DECODE_SLACK", "CHUNKKV_THREADS", "CHUNKKV_LOG_LEVEL",  "CHUNKKV_STATS",
    "CHUNKKV_SPREAD"};

static void check_all(void) {
  const ckvp_settings *s = &settings;
  const ckv_params *p = &s->params;
  PROMISE(s->keep > 0 && s->keep <= 1 && s->min_tokens >= 0, "keep %g", s->keep);
  PROMISE(p->budget >= 0 && ckv_method_name(p->method) && p->chunk_size >= 1, "params");
  PROMISE(p->window >= 1 && p->window <= 64 && p->layer_reuse >= 1, "window %d", p->window);
  PROMISE(p->spread >= 1 && p->spread <= 64, "spread %d", p->spread);
  PROMISE(s->num_threads >= 0 && s->num_threads <= 1024, "%d threads", s->num_threads);
  PROMISE(s->decode_budget >= 0 && s->decode_slack >= 1, "decode budget %d", s->decode_budget);
  PROMISE(s->decode_budget <= INT32_MAX - s->decode_slack, "their sum overflows");
  // The library takes what the settings leave it.
  ckv_params own = *p;
  if (own.budget == 0) own.budget = ckv_budget_for(s->keep, 1000);
  ckv_scores scores = {.struct_size = sizeof scores};
  ckv_kept kept = {.struct_size = sizeof kept, .num_heads = ckv_kept_heads(&own, 0)};
  static ckv_context *context;
  ckv_context_params params;
  ckv_context_default_params(&params);
  params.num_threads = 1;
  if (!context) PROMISE(ckv_context_create(&params, &context) == CKV_OK, "context");
  scores.num_heads = ckv_score_heads(&own, 1);
  kept.num_heads = ckv_kept_heads(&own, scores.num_heads);
  PROMISE(ckv_select(context, &own, &scores, &kept) == CKV_OK, "%s", ckv_context_error(context));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  // Texts by their variables' numbers: number, text, zero.
  for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) unsetenv(NAMES[i]);
  input in = {data, size};
  while (in.size > 0) {
    const char *const name = NAMES[take_u8(&in) % (sizeof NAMES / sizeof *NAMES)];
    const uint8_t *const end = in.size ? memchr(in.data, 0, in.size) : NULL;
    const size_t length = end ? (size_t)(end - in.data) : in.size;
    char *text = exactly(length + 1, 1);
    take(&in, text, length);
    text[length] = '\0';
    (void)take_u8(&in);
    setenv(name, text, 1);
    free(text);
  }
  read_all();
  check_all();
  return 0;
}
