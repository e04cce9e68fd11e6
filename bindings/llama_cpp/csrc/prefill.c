// A prompt, all of it or nothing; and one that is only tried.
#include <stdlib.h>
#include <string.h>

#include "objects.h"

static void finish(ckvl_prefill *prefill) {
  free(prefill->sliding_blob);
  ckvl_sums_free(&prefill->sums);
  *prefill = (ckvl_prefill){.sequence = -1};
}

// Sliding windows forget what an undone prompt has pushed out of them, so it is kept here.
static ckv_status save_sliding(ckv_llama_context *context, ckvl_prefill *prefill) {
  const ckv_llama_engine *engine = context->model->engine;
  const llama_state_seq_flags flags = LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY;
  if (prefill->first == 0 || engine->host.llama_model_n_swa(context->model->model) <= 0) {
    return CKV_OK;
  }
  prefill->sliding_bytes =
      engine->api.llama_state_seq_get_size_ext(context->ctx, prefill->sequence, flags);
  prefill->sliding_blob = malloc(prefill->sliding_bytes + 1);
  if (!prefill->sliding_blob) return ckvl_fail_memory(&context->error, prefill->sliding_bytes);
  const size_t read = engine->api.llama_state_seq_get_data_ext(
      context->ctx, prefill->sliding_blob, prefill->sliding_bytes, prefill->sequence, flags);
  if (read == prefill->sliding_bytes) return CKV_OK;
  return ckvl_fail(&context->error, CKV_ERROR_ENGINE,
                   "Expected %zu bytes of sliding-window state but found %zu",
                   prefill->sliding_bytes, read);
}

ckv_status ckv_llama_prefill_begin(ckv_llama_context *context, int32_t s, int32_t num_tokens) {
  ckv_status status = ckvl_enter(context, s);
  if (status) return status;
  const ckvl_sequence *sequence = &context->sequences[s];
  const int32_t cells = (int32_t)context->model->engine->host.llama_n_ctx(context->ctx);
  if (num_tokens < 1 || num_tokens > cells) {
    status = ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                       "Expected a prompt of 1 to %d tokens, the context's size, but found %d",
                       cells, num_tokens);
    return ckvl_leave(context, status);
  }
  ckvl_prefill *prefill = &context->prefill;
  *prefill = (ckvl_prefill){
      .sequence = s,
      .first = sequence->next,
      .num_tokens = num_tokens,
      .tokens_before = sequence->num_tokens,
      .had_logits = sequence->has_logits,
  };
  status = save_sliding(context, prefill);
  if (!status && context->accumulates) {
    status = ckvl_sums_copy(&sequence->sums, &prefill->sums, &context->error);
  }
  if (status) finish(prefill);
  return ckvl_leave(context, status);
}

static ckv_status undo(ckv_llama_context *context) {
  const ckvl_api *api = &context->model->engine->api;
  ckvl_prefill *prefill = &context->prefill;
  ckvl_sequence *sequence = &context->sequences[prefill->sequence];
  const int32_t s = prefill->sequence;
  ckv_status status = CKV_OK;
  api->llama_memory_seq_rm(context->memory, s, prefill->first, -1);
  if (prefill->sliding_blob && api->llama_state_seq_set_data_ext(
                                   context->ctx, prefill->sliding_blob, prefill->sliding_bytes, s,
                                   LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY) != prefill->sliding_bytes) {
    api->llama_memory_seq_rm(context->memory, s, -1, -1);
    ckvl_sequence_clear(sequence);
    status = ckvl_fail(&context->error, CKV_ERROR_ENGINE,
                       "Expected the engine to restore the sliding windows but it did not: the "
                       "sequence was lost");
  } else {
    // The logits are still those of the token before: only a prompt's end replaces them.
    sequence->next = prefill->first;
    sequence->num_tokens = prefill->tokens_before;
    sequence->has_logits = prefill->had_logits;
    ckvl_sums_free(&sequence->sums);
    sequence->sums = prefill->sums;
    prefill->sums = (ckvl_sums){0};
    if (sequence->capture.next > prefill->first) ckvl_capture_forget(&sequence->capture);
    if (prefill->sliding_blob) {
      ckvl_capture_forget_cells(&sequence->capture);
      sequence->windows_cut = true;
    }
  }
  finish(prefill);
  return status;
}

ckv_status ckv_llama_prefill_undo(ckv_llama_context *context) {
  const ckv_status status = ckvl_enter_prefill(context);
  return status ? status : ckvl_leave(context, undo(context));
}

// Tokens at the end of the prompt whose graphs show the window's queries: whole micro-batches, for
// graphs as they are without a capture.
static int32_t captured_tokens(const ckv_llama_context *context, int32_t num_tokens) {
  const int32_t micro = (int32_t)context->model->engine->host.llama_n_ubatch(context->ctx);
  int32_t tokens = (num_tokens - 1) % micro + 1;
  while (tokens < num_tokens && tokens < CKVL_WINDOW) tokens += micro;
  return tokens < num_tokens ? tokens : num_tokens;
}

// The engine waits for each graph that is watched, so that those without the window go alone.
static ckv_status step(ckv_llama_context *context, const int32_t *tokens, int32_t num_tokens,
                       bool is_last) {
  const ckvl_prefill *prefill = &context->prefill;
  const llama_pos from = prefill->first + prefill->num_tokens - CKVL_WINDOW;
  const int32_t before = is_last ? num_tokens - captured_tokens(context, num_tokens) : 0;
  ckv_status status = CKV_OK;
  if (before > 0) {
    status = ckvl_decode(context, prefill->sequence, tokens, before, from, CKVL_NO_LOGITS);
  }
  if (status) return status;
  return ckvl_decode(context, prefill->sequence, tokens + before, num_tokens - before, from,
                     is_last ? CKVL_NEWEST_LOGITS : CKVL_NO_LOGITS);
}

ckv_status ckv_llama_prefill_step(ckv_llama_context *context, const int32_t *tokens,
                                  int32_t num_tokens) {
  ckv_status status = ckvl_enter_prefill(context);
  if (status) return status;
  ckvl_prefill *prefill = &context->prefill;
  const int32_t left = prefill->num_tokens - prefill->done;
  const int32_t most = left < context->batch_size ? left : context->batch_size;
  atomic_store(&context->cancelled, false);
  if (num_tokens < 1 || num_tokens > most) {
    status = ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                       "Expected a step of 1 to %d tokens but found %d", most, num_tokens);
  } else {
    status = step(context, tokens, num_tokens, num_tokens == left);
  }
  if (status) {
    // The step's own error text is the one to keep.
    const ckvl_error error = context->error;
    if (undo(context) == CKV_OK) context->error = error;
    return ckvl_leave(context, status);
  }
  prefill->done += num_tokens;
  if (prefill->done == prefill->num_tokens) finish(prefill);
  return ckvl_leave(context, CKV_OK);
}

// Decodes the tokens, copies what the model says after each, and takes them out again.
static ckv_status score(ckv_llama_context *context, const int32_t *tokens, int32_t num_tokens,
                        float *logits) {
  const ckvl_host_api *host = &context->model->engine->host;
  const size_t vocab = (size_t)host->llama_vocab_n_tokens(context->model->vocab);
  const int32_t most =
      context->max_outputs < context->batch_size ? context->max_outputs : context->batch_size;
  ckv_status status = CKV_OK;
  for (int32_t done = 0; done < num_tokens && !status;) {
    const int32_t left = num_tokens - done;
    const int32_t step = left < most ? left : most;
    status = ckvl_decode(context, context->prefill.sequence, tokens + done, step, INT32_MAX,
                         CKVL_ALL_LOGITS);
    for (int32_t i = 0; i < step && !status; i++, done++) {
      const float *row = host->llama_get_logits_ith(context->ctx, i);
      if (row) {
        memcpy(logits + (size_t)done * vocab, row, sizeof *row * vocab);
      } else {
        status = ckvl_fail(&context->error, CKV_ERROR_ENGINE,
                           "Expected logits for token %d of %d but the engine has none", done,
                           num_tokens);
      }
    }
  }
  const ckvl_error error = context->error;
  const ckv_status undone = undo(context);
  if (undone) return undone;
  if (status) context->error = error;
  return status;
}

ckv_status ckv_llama_score(ckv_llama_context *context, int32_t sequence, const int32_t *tokens,
                           int32_t num_tokens, float *logits) {
  ckv_status status = ckv_llama_prefill_begin(context, sequence, num_tokens);
  if (status) return status;
  status = ckvl_enter_prefill(context);
  if (status) return status;
  atomic_store(&context->cancelled, false);
  return ckvl_leave(context, score(context, tokens, num_tokens, logits));
}
