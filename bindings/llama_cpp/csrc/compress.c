// Compression as the bridge offers it: one sequence of a context, with a report.
#include <math.h>
#include <string.h>
#include <time.h>

#include "objects.h"

static double now_ms(void) {
  struct timespec now;
  timespec_get(&now, TIME_UTC);
  return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

static ckv_status check_model(ckv_llama_context *context) {
  const ckvl_host_api *host = &context->model->engine->host;
  const struct llama_model *model = context->model->model;
  const char *kind = host->llama_model_is_recurrent(model)   ? "a recurrent model"
                     : host->llama_model_is_hybrid(model)    ? "a hybrid model"
                     : host->llama_model_is_diffusion(model) ? "a diffusion model"
                     : host->llama_model_has_encoder(model)  ? "a model with an encoder"
                     : !host->llama_model_has_decoder(model) ? "a model without a decoder"
                                                             : NULL;
  if (kind) {
    return ckvl_fail(&context->error, CKV_ERROR_UNSUPPORTED,
                     "Expected a model whose memory is all KV cache but found %s", kind);
  }
  if (!context->flash_attention) {
    return ckvl_fail(&context->error, CKV_ERROR_UNSUPPORTED,
                     "Expected a context with flash attention but found one without: its cache "
                     "cannot be compressed");
  }
  return CKV_OK;
}

// Checks the sequence, computes missing queries of its newest `window` tokens, and prepares.
static ckv_status prepare(ckv_llama_context *context, int32_t s, int32_t window, ckvl_compaction *c,
                          ckv_llama_report *report) {
  ckvl_sequence *sequence = &context->sequences[s];
  ckv_status status = check_model(context);
  if (status) return status;
  if (sequence->next == 0) {
    return ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected a sequence with tokens but found sequence %d empty: prefill first",
                     s);
  }
  const double start = now_ms();
  bool refreshed;
  status = ckvl_refresh_window(context, s, window, &refreshed);
  if (status) return status;
  if (refreshed) report->refresh_ms = now_ms() - start;
  if (sequence->shift_pending) {
    return ckvl_fail(&context->error, CKV_ERROR_UNSUPPORTED,
                     "Expected no shift of positions to be pending but found one: decode first");
  }
  *c = (ckvl_compaction){
      .api = &context->model->engine->api,
      .ctx = context->ctx,
      .seq = s,
      .capture = &sequence->capture,
      .ckv = context->ckv,
      .devices = &context->devices,
      .error = &context->error,
      .sums = context->accumulates ? &sequence->sums : NULL,
      .has_hidden = sequence->has_hidden,
  };
  status = ckvl_compaction_prepare(c);
  report->before = report->after = c->cells.count;
  report->num_layers = c->global.count;
  report->num_sliding = c->sliding.count;
  return status;
}

// Attention that a caller gave may be another model's.
static void check_sums(const ckvl_compaction *c, ckvl_sums *sums) {
  for (int32_t l = 0; l < c->global.count; l++) {
    const ckvl_layer *layer = c->global.data[l];
    const ckvl_sums_layer *own = ckvl_sums_find(sums, layer->index);
    if (own && own->heads != layer->num_kv_heads) {
      ckvl_sums_void(sums, "found that what was given is of another number of heads");
      return;
    }
  }
}

static ckv_status commit(ckv_llama_context *context, int32_t s, ckvl_compaction *c,
                         ckv_llama_report *report) {
  ckvl_sequence *sequence = &context->sequences[s];
  const double start = now_ms();
  const int32_t tail = ckvl_kept_tail(&c->kept, c->cells.count);
  const ckv_status status = ckvl_compaction_commit(c);
  if (c->is_lost) {
    ckvl_sequence_clear(sequence);
    const size_t said = strlen(context->error.text);
    ckvl_error whole = context->error;
    const char *suffix = ": the sequence was lost and is empty now";
    if (said + strlen(suffix) < sizeof whole.text) strcpy(whole.text + said, suffix);
    context->error = whole;
  }
  if (status) return status;
  if (tail < c->cells.count) {
    const llama_pos end = c->cells.pos[c->cells.count - tail];
    if (sequence->compacted_end < end) sequence->compacted_end = end;
  }
  ckvl_capture_forget_cells(&sequence->capture);
  check_sums(c, &sequence->sums);
  ckvl_sums_gather(&sequence->sums, &c->kept, c->cells.count);
  sequence->has_hidden = false;
  for (int32_t l = 0; l < c->kept.num_layers; l++) {
    if (c->kept.lens[l] < c->kept.len) sequence->has_hidden = true;
  }
  sequence->windows_cut = sequence->windows_cut || c->sliding.count > 0;
  report->compact_ms = now_ms() - start;
  report->after = c->kept.len;
  report->bytes_freed = (int64_t)ckvl_blob_row_bytes(&c->global) * (report->before - report->after);
  return CKV_OK;
}

// Hands the kept indices to the context.
static void keep_result(ckv_llama_context *context, ckvl_compaction *c, ckv_llama_report *report) {
  report->max_heads = c->kept.max_heads;
  ckvl_kept_free(&context->kept);
  context->kept = c->kept;
  c->kept = (ckvl_kept){0};
}

// The number of tokens to keep of n.
static ckv_status resolve_budget(ckv_llama_context *context, ckv_params *params, double keep,
                                 int32_t n) {
  if (params->budget != 0 || params->method == CKV_METHOD_FULL) return CKV_OK;
  params->budget = ckv_budget_for(keep, n);
  if (params->budget > 0) return CKV_OK;
  return ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                   "Expected keep to be above 0 and at most 1 but found %g", keep);
}

static ckv_status compress(ckv_llama_context *context, int32_t s, const ckv_params *given,
                           double keep, ckvl_compaction *c, ckv_llama_report *report) {
  if (!given || given->struct_size != sizeof *given || !report ||
      report->struct_size != sizeof *report) {
    return ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected params of %zu and a report of %zu bytes", sizeof *given,
                     sizeof *report);
  }
  ckv_params params = *given;
  *report = (ckv_llama_report){.struct_size = sizeof *report};
  ckv_status status = resolve_budget(context, &params, keep, 1);
  if (status) return status;
  params.budget = given->budget;
  const int32_t window = params.window < 1 || params.window > CKVL_WINDOW ||
                                 params.method == CKV_METHOD_H2O || ckv_score_heads(&params, 1) == 0
                             ? 1
                             : params.window;
  // A window longer than the sequence is an error of the params, found below.
  const int32_t tokens = context->sequences[s].num_tokens;
  status = prepare(context, s, window < tokens || tokens < 1 ? window : tokens, c, report);
  if (!status) status = resolve_budget(context, &params, keep, c->cells.count);
  const double start = now_ms();
  if (!status) status = ckvl_compaction_select(c, &params);
  if (status) return status;
  report->select_ms = now_ms() - start;
  if (c->drops) status = commit(context, s, c, report);
  if (!status) keep_result(context, c, report);
  return status;
}

ckv_status ckv_llama_compress(ckv_llama_context *context, int32_t sequence,
                              const ckv_params *params, double keep, ckv_llama_report *report) {
  ckv_status status = ckvl_enter(context, sequence);
  if (status) return status;
  atomic_store(&context->cancelled, false);
  ckvl_compaction c = {0};
  status = compress(context, sequence, params, keep, &c, report);
  ckvl_compaction_free(&c);
  return ckvl_leave(context, status);
}

static ckv_status copy_indices(ckv_llama_context *context, int32_t num_layers, int32_t num_heads,
                               int32_t num_kept, const int32_t *indices, ckvl_kept *kept) {
  if (num_layers < 1 || num_layers > CKVL_MAX_LAYERS || num_heads < 1 || num_heads > 65536 ||
      num_kept < 1 || !indices) {
    return ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected index sets of at least 1 layer, head and token but found %d, %d and "
                     "%d",
                     num_layers, num_heads, num_kept);
  }
  const ckv_status status = ckvl_kept_init(kept, num_layers, num_heads, num_kept, &context->error);
  if (status) return status;
  kept->len = num_kept;
  for (int32_t l = 0; l < num_layers; l++) {
    kept->heads[l] = num_heads;
    kept->lens[l] = num_kept;
  }
  memcpy(kept->indices, indices,
         sizeof *indices * (size_t)num_layers * (size_t)num_heads * (size_t)num_kept);
  return CKV_OK;
}

ckv_status ckv_llama_compact(ckv_llama_context *context, int32_t sequence, int32_t num_layers,
                             int32_t num_heads, int32_t num_kept, const int32_t *indices,
                             ckv_llama_report *report) {
  ckv_status status = ckvl_enter(context, sequence);
  if (status) return status;
  atomic_store(&context->cancelled, false);
  ckvl_compaction c = {0};
  ckvl_kept kept = {0};
  if (!report || report->struct_size != sizeof *report) {
    status = ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                       "Expected a report of %zu bytes", sizeof *report);
  } else {
    *report = (ckv_llama_report){.struct_size = sizeof *report};
    status = copy_indices(context, num_layers, num_heads, num_kept, indices, &kept);
  }
  if (!status) status = prepare(context, sequence, 1, &c, report);
  if (!status) status = ckvl_compaction_use(&c, &kept);
  if (!status) status = commit(context, sequence, &c, report);
  if (!status) keep_result(context, &c, report);
  ckvl_kept_free(&kept);
  ckvl_compaction_free(&c);
  return ckvl_leave(context, status);
}

int32_t ckv_llama_kept(ckv_llama_context *context, int32_t layer, int32_t head, int32_t *number,
                       int32_t *indices, int32_t capacity) {
  if (atomic_flag_test_and_set(&context->busy)) return -1;
  const ckvl_kept *kept = &context->kept;
  int32_t len = -1;
  if (layer >= 0 && layer < kept->num_layers && head >= 0 && head < kept->heads[layer]) {
    len = kept->lens[layer];
    if (number) *number = kept->layer[layer];
    const int32_t count = len < capacity ? len : capacity;
    const int32_t *set = ckvl_kept_indices(kept, layer) + (size_t)head * (size_t)kept->capacity;
    if (count > 0 && indices) memcpy(indices, set, sizeof *indices * (size_t)count);
  }
  atomic_flag_clear(&context->busy);
  return len;
}
