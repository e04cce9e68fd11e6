#include <string.h>
#include <time.h>

#include "compaction.h"
#include "decode.h"
#include "libllama.h"
#include "log.h"
#include "quiet.h"
#include "say.h"
#include "settings.h"

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

static ckv_status open_library(ckvp_context *context, ckvl_error *error) {
  if (context->ckv) return CKV_OK;
  ckv_context_params own;
  ckv_context_default_params(&own);
  own.num_threads = ckvp_settings_get()->num_threads;
  const ckv_status status = ckv_context_create(&own, &context->ckv);
  if (status) return ckvl_fail(error, status, "%s", ckv_status_name(status));
  ckvp_say(CKVP_DEBUG, "%s with %d threads", ckv_isa_name(ckv_context_isa(context->ckv)),
           ckv_context_num_threads(context->ckv));
  return CKV_OK;
}

// The window may be cut by what was captured: a short last turn shows that many queries.
static ckv_params fit_params(const ckvl_compaction *c, int32_t budget) {
  ckv_params params = ckvp_settings_get()->params;
  params.budget = budget;
  if (params.window > c->capture->rows) params.window = c->capture->rows;
  if (params.window > c->cells.count) params.window = c->cells.count;
  if (params.chunk_size > c->cells.count) params.chunk_size = c->cells.count;
  return params;
}

static ckv_status run(ckvp_context *context, ckvl_compaction *c, int32_t budget,
                      ckvp_event *event) {
  const double start = now_ms();
  ckv_status status = open_library(context, c->error);
  c->ckv = context->ckv;
  if (!status) status = ckvl_compaction_prepare(c);
  if (status) return status;
  event->before = event->after = c->cells.count;
  const double prepared = now_ms();
  event->prepare_ms = prepared - start;
  const ckv_params params = fit_params(c, budget);
  if (budget >= c->cells.count || params.method == CKV_METHOD_FULL) return CKV_OK;
  event->window = params.window;
  status = ckvl_compaction_select(c, &params);
  const double selected = now_ms();
  event->select_ms = selected - prepared;
  if (status || c->kept.len >= c->cells.count) return status;
  status = ckvl_compaction_commit(c);
  event->compact_ms = now_ms() - selected;
  if (!status) event->after = c->kept.len;
  return status;
}

// Sliding windows that are cut short hold no more than a host asks for. node-llama-cpp does not ask for
// them.
static int32_t reach_of(const ckvp_context *context, const ckvl_compaction *c) {
  if (c->sliding.count == 0 || ckvp_is_node()) return 0;
  const bool is_full = c->sliding.data[0]->keys->ne[1] == c->global.data[0]->keys->ne[1];
  return is_full ? 0 : context->host->llama_model_n_swa(context->model);
}

static void note_compacted(ckvp_context *context, ckvp_sequence *sequence,
                           const ckvl_compaction *c) {
  const int32_t n = c->cells.count;
  const llama_pos end = c->cells.pos[n - 1] + 1;
  const int32_t tail = ckvl_kept_tail(&c->kept, n);
  const llama_pos first = tail < n ? c->cells.pos[n - tail] : c->cells.pos[0];
  if (sequence->tail < first) sequence->tail = first;
  sequence->compacted = end;
  sequence->cells = c->kept.len;
  context->reach = reach_of(context, c);
  ckvl_capture_forget_cells(&sequence->capture);
}

// Says why once, not at every prompt.
static bool is_news(ckvp_context *context, const char *reason) {
  uint64_t hash = 14695981039346656037u;  // FNV-1a, digits left out: counts change
  for (; *reason; reason++) {
    if (*reason < '0' || *reason > '9') hash = (hash ^ (unsigned char)*reason) * 1099511628211u;
  }
  if (hash == context->said) return false;
  context->said = hash;
  return true;
}

bool ckvp_compress(ckvp_context *context, llama_seq_id seq, int32_t budget, bool is_decode) {
  ckvp_sequence *sequence = &context->sequences[seq];
  ckvl_error error = {""};
  ckvp_event event = {.context = context->ctx, .sequence = seq, .is_decode = is_decode};
  event.positions = sequence->capture.next;
  if (ckvp_is_draft(context)) {
    if (is_news(context, "draft")) {
      ckvp_say(CKVP_INFO, "the cache of the smaller model, which drafts, is left as it is");
    }
    return true;
  }
  ckvl_compaction c = {.api = &context->host->api,
                       .ctx = context->ctx,
                       .seq = seq,
                       .capture = &sequence->capture,
                       .devices = &context->devices,
                       .keeps_device_states = context->keeps_device_states,
                       .error = &error};
  context->host->llama_synchronize(context->ctx);
  ckvp_quiet_begin(context->host);
  const ckv_status status = run(context, &c, budget, &event);
  ckvp_quiet_end(context->host);
  if (!status && event.after < event.before) {
    note_compacted(context, sequence, &c);
    ckvp_report(&event);
  } else if (status) {
    event.reason = error.text;
    if (c.is_lost || is_news(context, error.text)) ckvp_report(&event);
  }
  const bool is_lost = c.is_lost;
  ckvl_compaction_free(&c);
  if (is_lost) ckvp_note_removed(context, seq, -1, -1);
  return !is_lost;
}
