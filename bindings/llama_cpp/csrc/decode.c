// Tokens into the engine, and what is noted of them.
#include <stdlib.h>
#include <string.h>

#include "eval_hook.h"
#include "log.h"
#include "objects.h"

void ckvl_sequence_truncate(ckvl_sequence *sequence, llama_pos from) {
  if (from >= sequence->next) return;
  const int32_t removed = sequence->next - from;
  sequence->num_tokens = sequence->num_tokens > removed ? sequence->num_tokens - removed : 0;
  sequence->next = from;
  sequence->has_logits = false;
  if (sequence->compacted_end > from) sequence->compacted_end = from;
  ckvl_sums_void(&sequence->sums, "found that newest tokens were removed, which had paid some");
  ckvl_capture_rewind(&sequence->capture, from);
}

void ckvl_sequence_clear(ckvl_sequence *sequence) {
  sequence->next = 0;
  sequence->num_tokens = 0;
  sequence->has_logits = false;
  sequence->shift_pending = false;
  sequence->windows_cut = false;
  sequence->compacted_end = 0;
  sequence->has_hidden = false;
  ckvl_sums_reset(&sequence->sums);
  ckvl_capture_forget(&sequence->capture);
}

// Room for the notes of a decode call, before it runs.
static ckv_status reserve(ckv_llama_context *context, ckvl_sequence *sequence, int32_t num_tokens,
                          ckvl_wanted wanted) {
  const int32_t needed = sequence->num_tokens + num_tokens;
  if (needed > sequence->token_capacity) {
    const int32_t capacity = needed + needed / 2;
    int32_t *grown = realloc(sequence->tokens, sizeof *grown * (size_t)capacity);
    if (!grown) return ckvl_fail_memory(&context->error, sizeof *grown * (size_t)capacity);
    sequence->tokens = grown;
    sequence->token_capacity = capacity;
  }
  if (wanted == CKVL_NEWEST_LOGITS && !sequence->logits) {
    const ckv_llama_model *model = context->model;
    const size_t bytes =
        sizeof(float) * (size_t)model->engine->host.llama_vocab_n_tokens(model->vocab);
    sequence->logits = malloc(bytes);
    if (!sequence->logits) return ckvl_fail_memory(&context->error, bytes);
  }
  return CKV_OK;
}

static ckv_status fail_decode(ckv_llama_context *context, int32_t result, int32_t num_tokens) {
  switch (result) {
    case 1:
      return ckvl_fail(&context->error, CKV_ERROR_ENGINE,
                       "Expected free cells for %d more tokens in the context's %u but found too "
                       "few: compress a sequence, remove one, or make a larger context",
                       num_tokens, context->model->engine->host.llama_n_ctx(context->ctx));
    case 2:
      return ckvl_fail(&context->error, CKV_ERROR_CANCELLED, "Decoding was cancelled");
    case -1:
      return ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                       "Expected tokens that the engine takes but found: %s", ckvl_log_text());
    default:
      return ckvl_fail(&context->error, CKV_ERROR_ENGINE,
                       "Expected the engine to decode %d tokens but it returned %d: %s", num_tokens,
                       result, ckvl_log_text());
  }
}

// Runs a batch whose arrays of positions, owners and outputs are filled.
static int32_t decode_batch(ckv_llama_context *context, const int32_t *tokens, int32_t num_tokens) {
  const struct llama_batch batch = {
      .n_tokens = num_tokens,
      .token = (llama_token *)(uintptr_t)tokens,  // only read
      .pos = context->positions,
      .n_seq_id = context->owner_counts,
      .seq_id = context->owners,
      .logits = context->outputs,
  };
  ckvl_log_clear();
  ckvl_hook_set(context);
  return context->model->engine->host.llama_decode(context->ctx, batch);
}

static int32_t run_engine(ckv_llama_context *context, int32_t s, const int32_t *tokens,
                          int32_t num_tokens, ckvl_wanted wanted) {
  llama_seq_id owner = s;
  for (int32_t i = 0; i < num_tokens; i++) {
    context->positions[i] = context->sequences[s].next + i;
    context->owner_counts[i] = 1;
    context->owners[i] = &owner;
    context->outputs[i] =
        wanted == CKVL_ALL_LOGITS || (wanted == CKVL_NEWEST_LOGITS && i == num_tokens - 1);
  }
  return decode_batch(context, tokens, num_tokens);
}

// Notes of a decode call that has succeeded.
static void append(ckv_llama_context *context, int32_t s, const int32_t *tokens,
                   int32_t num_tokens) {
  ckvl_sequence *sequence = &context->sequences[s];
  memcpy(sequence->tokens + sequence->num_tokens, tokens, sizeof *tokens * (size_t)num_tokens);
  sequence->num_tokens += num_tokens;
  sequence->next += num_tokens;
  sequence->has_logits = false;
  // A decode call applies the shifts of all sequences first.
  for (int32_t i = 0; i < context->num_sequences; i++) context->sequences[i].shift_pending = false;
}

// Takes over the logits of the batch's token `at` as those of the sequence's newest.
static ckv_status keep_logits(ckv_llama_context *context, int32_t s, int32_t at) {
  const ckvl_host_api *host = &context->model->engine->host;
  ckvl_sequence *sequence = &context->sequences[s];
  const float *logits = host->llama_get_logits_ith(context->ctx, at);
  if (!logits) {
    return ckvl_fail(&context->error, CKV_ERROR_ENGINE,
                     "Expected logits for the newest token but the engine has none");
  }
  memcpy(sequence->logits, logits,
         sizeof *logits * (size_t)host->llama_vocab_n_tokens(context->model->vocab));
  sequence->has_logits = true;
  return CKV_OK;
}

ckv_status ckvl_decode(ckv_llama_context *context, int32_t s, const int32_t *tokens,
                       int32_t num_tokens, llama_pos capture_from, ckvl_wanted wanted) {
  const ckv_llama_engine *engine = context->model->engine;
  ckvl_sequence *sequence = &context->sequences[s];
  if (num_tokens > INT32_MAX - sequence->next) {
    return ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected positions below %d but found more", INT32_MAX);
  }
  const ckv_status status = reserve(context, sequence, num_tokens, wanted);
  if (status) return status;
  const llama_pos end = sequence->next + num_tokens;
  // What is only tried is taken out again before anything asks for its attention.
  const bool accumulates = context->accumulates && !context->is_refreshing &&
                           !sequence->sums.status && wanted != CKVL_ALL_LOGITS;
  // Where attention is added up, the newest token's mask tells which cells it went to.
  if (accumulates && capture_from > end - 1) capture_from = end - 1;
  ckvl_capture *capture = end > capture_from ? &sequence->capture : NULL;
  const ckvl_run run = {
      .seq = s, .end = num_tokens, .batch_tokens = num_tokens, .first = sequence->next};
  if (capture) ckvl_capture_begin(capture, &run, capture_from);
  context->recording = capture;
  if (accumulates) ckvl_accumulator_begin(&context->accumulator);
  if (sequence->has_hidden) ckvl_hiding_begin(&context->hiding, false);
  const int32_t result = run_engine(context, s, tokens, num_tokens, wanted);
  context->recording = NULL;
  context->accumulator.is_on = false;
  const ckv_status hidden = ckvl_hiding_end(&context->hiding, &context->error);
  if (capture) ckvl_capture_end(capture, end, result == 0 && !hidden);
  if (result != 0 || hidden) {
    // What was decoded before the failure goes again.
    engine->api.llama_memory_seq_rm(context->memory, s, sequence->next, -1);
    return result != 0 ? fail_decode(context, result, num_tokens) : hidden;
  }
  if (accumulates) {
    ckvl_accumulator_end(&context->accumulator, context->ctx, s, capture, num_tokens,
                         &sequence->sums);
  }
  append(context, s, tokens, num_tokens);
  return wanted == CKVL_NEWEST_LOGITS ? keep_logits(context, s, num_tokens - 1) : CKV_OK;
}

// A batch of one token in each of several sequences; true if some of them have hidden cells.
static bool fill_batch(ckv_llama_context *context, int32_t count, const int32_t *sequences) {
  bool has_hidden = false;
  for (int32_t i = 0; i < count; i++) {
    const ckvl_sequence *sequence = &context->sequences[sequences[i]];
    context->positions[i] = sequence->next;
    context->owner_counts[i] = 1;
    context->owners[i] = (llama_seq_id *)(uintptr_t)&sequences[i];  // only read
    context->outputs[i] = 1;
    has_hidden = has_hidden || sequence->has_hidden;
  }
  return has_hidden;
}

ckv_status ckvl_decode_each(ckv_llama_context *context, int32_t count, const int32_t *sequences,
                            const int32_t *tokens) {
  ckv_status status = CKV_OK;
  for (int32_t i = 0; i < count && !status; i++) {
    status = reserve(context, &context->sequences[sequences[i]], 1, CKVL_NEWEST_LOGITS);
  }
  if (status) return status;
  if (fill_batch(context, count, sequences)) ckvl_hiding_begin(&context->hiding, true);
  const int32_t result = decode_batch(context, tokens, count);
  status = ckvl_hiding_end(&context->hiding, &context->error);
  if (result != 0 || status) {
    for (int32_t i = 0; i < count; i++) {
      context->model->engine->api.llama_memory_seq_rm(context->memory, sequences[i],
                                                      context->sequences[sequences[i]].next, -1);
    }
    return result != 0 ? fail_decode(context, result, count) : status;
  }
  for (int32_t i = 0; i < count; i++) {
    append(context, sequences[i], &tokens[i], 1);
    if (context->accumulates) {
      ckvl_sums_void(&context->sequences[sequences[i]].sums,
                     "found tokens that were generated together with other sequences'");
    }
    const ckv_status kept = keep_logits(context, sequences[i], i);
    if (kept) status = kept;
  }
  return status;
}

// The newest `rows` tokens must be in all layers, and the newest `again` of them have cells that are
// theirs alone and go on from the token before, to be decoded again; the layers with a sliding window
// must still hold what the first of these sees.
static ckv_status check_refresh(ckv_llama_context *context, int32_t s, int32_t rows,
                                int32_t again) {
  const ckv_llama_engine *engine = context->model->engine;
  const ckvl_sequence *sequence = &context->sequences[s];
  ckvl_cells cells;
  const ckv_status status =
      ckvl_cells_read(&engine->api, context->ctx, s, 1, NULL, 0, &cells, &context->error);
  if (status) return status;
  const bool shared = cells.is_shared;
  const bool unbroken =
      cells.count >= rows && sequence->num_tokens >= rows &&
      cells.pos[cells.count - rows] == sequence->next - rows &&
      sequence->next - rows >= sequence->compacted_end &&
      (cells.count == again || cells.pos[cells.count - again - 1] == sequence->next - again - 1);
  const llama_pos oldest = cells.count ? cells.pos[0] : 0;
  ckvl_cells_free(&cells);
  const int32_t window = engine->host.llama_model_n_swa(context->model->model);
  llama_pos seen = window > 0 ? sequence->next - again - window + 1 : 0;
  if (seen < oldest) seen = oldest;
  const bool in_reach =
      window <= 0 || engine->host.llama_memory_seq_pos_min(context->memory, s) <= seen;
  if (!shared && unbroken && in_reach) return CKV_OK;
  return ckvl_fail(&context->error, shared ? CKV_ERROR_UNSUPPORTED : CKV_ERROR_INVALID_ARGUMENT,
                   "Expected to decode the newest %d tokens again, whose queries are needed, but "
                   "found %s",
                   rows,
                   shared ? "cells that a copy of the sequence shares"
                   : unbroken
                       ? "that their sliding window is gone"
                       : "that they are not all known and in all layers, one after the other");
}

ckv_status ckvl_refresh_window(ckv_llama_context *context, int32_t s, int32_t rows,
                               bool *was_needed) {
  ckvl_sequence *sequence = &context->sequences[s];
  const ckvl_capture *capture = &sequence->capture;
  // What made the capture fail would make it fail again, but for a want of memory.
  const bool failed = capture->status && capture->status != CKV_ERROR_OUT_OF_MEMORY;
  *was_needed =
      !failed && (!capture->has_cells || capture->next != sequence->next || capture->rows < rows);
  if (!*was_needed) return CKV_OK;
  // If only the cells are not known, one token shows them: its mask.
  const bool has_queries = capture->next == sequence->next && capture->rows >= rows;
  ckv_status status = check_refresh(context, s, rows, has_queries ? 1 : rows);
  if (status) return status;
  if (has_queries) rows = 1;
  int32_t again[CKVL_WINDOW];
  memcpy(again, sequence->tokens + sequence->num_tokens - rows, sizeof *again * (size_t)rows);
  const llama_pos end = sequence->next;
  const bool had_logits = sequence->has_logits;
  // What these tokens have paid is in the sums already.
  ckvl_sums sums = sequence->sums;
  sequence->sums = (ckvl_sums){0};
  context->is_refreshing = true;
  context->model->engine->api.llama_memory_seq_rm(context->memory, s, end - rows, -1);
  ckvl_sequence_truncate(sequence, end - rows);
  for (int32_t done = 0; done < rows && !status;) {
    const int32_t left = rows - done;
    const int32_t step = left < context->batch_size ? left : context->batch_size;
    const bool is_last = done + step == rows;
    status = ckvl_decode(context, s, again + done, step, end - rows,
                         is_last && had_logits ? CKVL_NEWEST_LOGITS : CKVL_NO_LOGITS);
    done += step;
  }
  context->is_refreshing = false;
  if (status) ckvl_sums_void(&sums, "found that newest tokens were lost");
  ckvl_sums_free(&sequence->sums);
  sequence->sums = sums;
  if (!status) return CKV_OK;
  const ckvl_error cause = context->error;
  return ckvl_fail(&context->error, status, "The newest %d tokens were lost: %.900s",
                   end - sequence->next, cause.text);
}
