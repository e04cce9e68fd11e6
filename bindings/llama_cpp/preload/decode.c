#include "decode.h"

#include "again.h"
#include "settings.h"

static _Thread_local ckvp_context *decoding;

ckvp_context *ckvp_decoding(void) { return decoding; }

ggml_backend_sched_eval_callback ckvp_callback(const ckvp_context *context) {
  return context->is_capturing ? ckvp_on_node : NULL;
}

bool ckvp_on_node(struct ggml_tensor *node, bool ask, void *user_data) {
  ckvp_context *context = user_data;
  bool answer = !ask;
  for (int32_t s = 0; s < context->num_sequences; s++) {
    ckvp_sequence *sequence = &context->sequences[s];
    if (!sequence->is_captured) continue;
    const bool own = ckvl_capture_node(node, ask, &sequence->capture);
    if (ask) answer = answer || own;
  }
  return answer;
}

static llama_pos newest(const ckvp_context *context, llama_seq_id seq) {
  return context->host->api.llama_memory_seq_pos_max(context->memory, seq);
}

// Notes a token of the batch in its sequence's run.
static void add_token(ckvp_context *context, const struct llama_batch *batch, int32_t i,
                      ckvp_sequence *sequence, llama_seq_id seq) {
  ckvl_run *run = &sequence->run;
  const bool is_new = run->end == 0;
  if (is_new) {
    *run = (ckvl_run){.seq = seq, .begin = i, .batch_tokens = batch->n_tokens};
    run->first = batch->pos ? batch->pos[i] : newest(context, seq) + 1;
    sequence->is_mixed = !batch->token;
    sequence->is_edited = false;  // the host has decided what it goes on from
    sequence->is_prompt = sequence->ends_prompt = false;
  }
  const llama_pos expected = run->first + (i - run->begin);
  if (!is_new && (run->end != i || (batch->pos && batch->pos[i] != expected))) {
    sequence->is_mixed = true;
  }
  run->end = i + 1;
  // Without flags the last token alone has an output; a full batch is then but a part of a prompt.
  const bool is_output = batch->logits
                             ? batch->logits[i] != 0
                             : i == batch->n_tokens - 1 && batch->n_tokens < context->batch_size;
  sequence->ends_prompt = is_output && sequence->pending > 0;
  sequence->is_prompt = sequence->is_prompt || !is_output;
  sequence->pending = is_output ? 0 : sequence->pending + 1;
}

static void plan(ckvp_context *context, const struct llama_batch *batch) {
  for (int32_t s = 0; s < context->num_sequences; s++) {
    context->sequences[s].run.end = 0;
    context->sequences[s].is_captured = false;
  }
  for (int32_t i = 0; i < batch->n_tokens; i++) {
    const int32_t owners = batch->seq_id && batch->n_seq_id ? batch->n_seq_id[i] : 1;
    for (int32_t o = 0; o < owners; o++) {
      const llama_seq_id seq = batch->seq_id ? batch->seq_id[i][o] : 0;
      if (seq < 0 || seq >= context->num_sequences) continue;
      ckvp_sequence *sequence = &context->sequences[seq];
      add_token(context, batch, i, sequence, seq);
      if (owners > 1) sequence->is_mixed = true;
    }
  }
}

// Whether queries of this call may be needed: by the prompt's end in it or in the next one, or by a
// generation that soon passes its budget.
static bool may_compress(ckvp_context *context, llama_seq_id seq) {
  const ckvp_settings *settings = ckvp_settings_get();
  ckvp_sequence *sequence = &context->sequences[seq];
  const int32_t tokens = sequence->run.end - sequence->run.begin;
  const int64_t end = (int64_t)sequence->run.first + tokens;
  const int32_t window = settings->params.window;
  if (sequence->is_prompt || sequence->ends_prompt) {
    return end + window - sequence->compacted > settings->min_tokens;
  }
  if (!settings->decode_budget) return false;
  ckvp_count_cells(context, seq);
  return sequence->cells + tokens + window >= settings->decode_budget + settings->decode_slack;
}

// Whether more of the prompt follows, with which queries of this call are not needed. Those of a
// sliding window cannot be had again if the rest is shorter than the observation window.
static bool is_open(const ckvp_context *context, const ckvp_sequence *sequence) {
  return sequence->is_prompt && !sequence->ends_prompt &&
         context->host->llama_model_n_swa(context->model) == 0;
}

static bool begin(ckvp_context *context) {
  const int32_t window = ckvp_settings_get()->params.window;
  bool any = false;
  for (int32_t s = 0; s < context->num_sequences; s++) {
    ckvp_sequence *sequence = &context->sequences[s];
    const ckvl_run *run = &sequence->run;
    if (run->end == 0 || sequence->is_mixed || !may_compress(context, s)) continue;
    sequence->run.is_open = is_open(context, sequence);
    if (sequence->run.is_open && context->is_on_device) {
      ckvl_capture_forget(&sequence->capture);
      continue;
    }
    ckvl_capture_begin(&sequence->capture, run, run->first + (run->end - run->begin) - window);
    sequence->is_captured = any = true;
  }
  return any;
}

// Compresses what is due. False: a sequence was lost.
static bool finish(ckvp_context *context, const struct llama_batch *batch, bool decoded) {
  const ckvp_settings *settings = ckvp_settings_get();
  bool ok = true;
  for (int32_t s = 0; s < context->num_sequences; s++) {
    ckvp_sequence *sequence = &context->sequences[s];
    const int32_t tokens = sequence->run.end - sequence->run.begin;
    if (sequence->run.end == 0) continue;
    const llama_pos next = sequence->run.first + tokens;
    if (sequence->is_captured) ckvl_capture_end(&sequence->capture, next, decoded);
    context->is_on_device =
        context->is_on_device || (sequence->is_captured && sequence->capture.skipped);
    if (decoded) sequence->next = next;
    ckvp_note_tokens(sequence, batch, decoded);
    if (!decoded) sequence->cells = -1;
    if (sequence->cells >= 0) sequence->cells += tokens;
    if (!decoded || !sequence->is_captured) continue;
    if (sequence->ends_prompt) {
      const int32_t budget =
          settings->params.budget ? settings->params.budget : ckv_budget_for(settings->keep, next);
      if (next - sequence->compacted > settings->min_tokens) {
        ok = ckvp_compress(context, s, budget, false) && ok;
      }
      // Queries of all layers are megabytes, and those of the next prompt are others.
      if (!settings->decode_budget) ckvl_capture_free(&sequence->capture);
    } else if (!sequence->is_prompt && settings->decode_budget &&
               tokens <= settings->params.window &&  // drafts that are refused go again
               sequence->cells >= settings->decode_budget + settings->decode_slack &&
               sequence->capture.rows >= settings->params.window) {
      ok = ckvp_compress(context, s, settings->decode_budget, true) && ok;
      // What was refused is not tried again at each token, but after as many more.
      if (sequence->cells > settings->decode_budget) sequence->cells = 0;
    }
  }
  return ok;
}

// The engine's own decode call, shown to the captures if there are any.
static int32_t run_engine(ckvp_context *context, struct llama_batch batch) {
  // The engine sets the callback of new graphs alone, not of those that it uses again.
  const ggml_backend_sched_t scheduler = atomic_load(&context->scheduler);
  if (scheduler) {
    context->host->ggml_backend_sched_set_eval_callback(scheduler, ckvp_callback(context), context);
  }
  decoding = context;
  const int32_t result = context->host->llama_decode(context->ctx, batch);
  decoding = NULL;
  return result;
}

// Queries that were left out and are needed after all: the prompt's last part is shorter than the
// window. False: the engine has lost the tokens that were to be read again.
static bool fill_windows(ckvp_context *context) {
  bool ok = true;
  for (int32_t s = 0; s < context->num_sequences && ok; s++) {
    ckvp_sequence *sequence = &context->sequences[s];
    struct ckvp_again again;
    if (!context->is_on_device || !may_compress(context, s) ||
        !ckvp_again_begin(context, s, ckvp_settings_get()->params.window, &again)) {
      continue;
    }
    context->is_capturing = sequence->is_captured = true;
    ok = run_engine(context, again.batch) == 0;
    sequence->is_captured = false;
    ckvl_capture_end(&sequence->capture, sequence->next, ok);
    if (!ok) ckvp_note_removed(context, s, again.pos[0], -1);
  }
  return ok;
}

int32_t ckvp_decode(ckvp_context *context, struct llama_batch batch) {
  plan(context, &batch);
  // As the engine answers where its own computation failed: the host gives the sequence up.
  if (!fill_windows(context)) return -3;
  context->is_capturing = begin(context);
  const int32_t result = run_engine(context, batch);
  return finish(context, &batch, result == 0) ? result : -3;
}
