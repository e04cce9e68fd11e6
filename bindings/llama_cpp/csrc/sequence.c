// Sequences of a context: lengths, removal, copies, shifts.
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "objects.h"

int32_t ckv_llama_sequence_length(ckv_llama_context *context, int32_t sequence) {
  const ckv_status status = ckvl_enter_reading(context, sequence);
  if (status) return -(int32_t)status;
  const int32_t length = context->sequences[sequence].next;
  ckvl_leave(context, CKV_OK);
  return length;
}

int32_t ckv_llama_sequence_positions(ckv_llama_context *context, int32_t sequence,
                                     int32_t *positions, int32_t capacity) {
  ckv_status status = ckvl_enter_reading(context, sequence);
  if (status) return -(int32_t)status;
  ckvl_cells cells;
  ckvl_log_clear();
  status = ckvl_cells_read(&context->model->engine->api, context->ctx, sequence, 1, NULL, 0, &cells,
                           &context->error);
  int32_t count = -(int32_t)status;
  if (!status) {
    count = cells.count;
    const int32_t copied = count < capacity ? count : capacity;
    if (copied > 0 && positions) memcpy(positions, cells.pos, sizeof *positions * (size_t)copied);
    ckvl_cells_free(&cells);
  }
  ckvl_leave(context, status);
  return count;
}

int32_t ckv_llama_sequence_cells(ckv_llama_context *context, int32_t sequence) {
  return ckv_llama_sequence_positions(context, sequence, NULL, 0);
}

int64_t ckv_llama_sequence_bytes(ckv_llama_context *context, int32_t sequence) {
  const ckv_status status = ckvl_enter_reading(context, sequence);
  if (status) return -(int64_t)status;
  const ckvl_api *api = &context->model->engine->api;
  // The state with its rows less the state without them.
  const size_t all =
      api->llama_state_seq_get_size_ext(context->ctx, sequence, LLAMA_STATE_SEQ_FLAGS_NONE);
  const size_t metadata =
      api->llama_state_seq_get_size_ext(context->ctx, sequence, LLAMA_STATE_SEQ_FLAGS_ON_DEVICE);
  ckvl_leave(context, CKV_OK);
  return all >= metadata ? (int64_t)(all - metadata) : 0;
}

static ckv_status remove_positions(ckv_llama_context *context, int32_t s, int32_t from,
                                   int32_t to) {
  const ckvl_api *api = &context->model->engine->api;
  ckvl_sequence *sequence = &context->sequences[s];
  if (to < 0 || to > sequence->next) to = sequence->next;
  if (from < 0 || from > to) {
    return ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected positions from 0 to %d but found %d to %d", sequence->next, from,
                     to);
  }
  if (from == 0 && to == sequence->next) {
    // Whatever is there: its positions need not be those that are known.
    api->llama_memory_seq_rm(context->memory, s, -1, -1);
    ckvl_sequence_clear(sequence);
    return CKV_OK;
  }
  if (from == to) return CKV_OK;
  if (from < sequence->compacted_end) {
    return ckvl_fail(
        &context->error, CKV_ERROR_UNSUPPORTED,
        "Expected to remove positions from %d on, or all, but found %d to %d: below %d "
        "each layer keeps tokens of its own since the compression",
        sequence->compacted_end, from, to, sequence->compacted_end);
  }
  if (!api->llama_memory_seq_rm(context->memory, s, from, to < sequence->next ? to : -1)) {
    return ckvl_fail(&context->error, CKV_ERROR_UNSUPPORTED,
                     "Expected the engine to remove positions %d to %d but this model's memory "
                     "cannot",
                     from, to);
  }
  if (to < sequence->next) {
    const int32_t left = sequence->next - to;
    if (sequence->num_tokens > left) {
      memmove(sequence->tokens, sequence->tokens + (sequence->num_tokens - left),
              sizeof *sequence->tokens * (size_t)left);
      sequence->num_tokens = left;
    }
    ckvl_sums_void(&sequence->sums, "found that tokens were removed, which had paid some");
    ckvl_capture_forget(&sequence->capture);
    return CKV_OK;
  }
  // After a compaction the position before the cut may itself be gone.
  const llama_pos newest = api->llama_memory_seq_pos_max(context->memory, s);
  if (newest < 0)
    ckvl_sequence_clear(sequence);
  else
    ckvl_sequence_truncate(sequence, newest + 1);
  return CKV_OK;
}

ckv_status ckv_llama_sequence_remove(ckv_llama_context *context, int32_t sequence, int32_t from,
                                     int32_t to) {
  const ckv_status status = ckvl_enter(context, sequence);
  if (status) return status;
  return ckvl_leave(context, remove_positions(context, sequence, from, to));
}

static ckv_status copy(ckv_llama_context *context, int32_t from, int32_t to) {
  const ckv_llama_engine *engine = context->model->engine;
  const ckvl_sequence *source = &context->sequences[from];
  ckvl_sequence *target = &context->sequences[to];
  if (from == to) return CKV_OK;
  const size_t tokens = (size_t)source->num_tokens;
  const size_t vocab = (size_t)engine->host.llama_vocab_n_tokens(context->model->vocab);
  int32_t *own_tokens = malloc(sizeof *own_tokens * (tokens + 1));
  float *own_logits = source->has_logits && !target->logits ? malloc(sizeof(float) * vocab) : NULL;
  if (!own_tokens || (source->has_logits && !target->logits && !own_logits)) {
    free(own_tokens);
    free(own_logits);
    return ckvl_fail_memory(&context->error, sizeof(float) * vocab);
  }
  ckvl_sums sums = {0};
  const ckv_status status = ckvl_sums_copy(&source->sums, &sums, &context->error);
  if (status) {
    free(own_tokens);
    free(own_logits);
    return status;
  }
  engine->api.llama_memory_seq_rm(context->memory, to, -1, -1);
  engine->host.llama_memory_seq_cp(context->memory, from, to, -1, -1);
  ckvl_sequence_clear(target);
  target->sums = sums;
  target->has_hidden = source->has_hidden;
  free(target->tokens);
  target->tokens = own_tokens;
  target->token_capacity = (int32_t)tokens + 1;
  target->num_tokens = source->num_tokens;
  if (tokens) memcpy(target->tokens, source->tokens, sizeof *own_tokens * tokens);
  if (own_logits) target->logits = own_logits;
  if (source->has_logits) memcpy(target->logits, source->logits, sizeof(float) * vocab);
  target->has_logits = source->has_logits;
  target->next = source->next;
  target->shift_pending = source->shift_pending;
  target->windows_cut = source->windows_cut;
  target->compacted_end = source->compacted_end;
  return CKV_OK;
}

ckv_status ckv_llama_sequence_copy(ckv_llama_context *context, int32_t sequence, int32_t to) {
  const ckv_status status = ckvl_enter(context, sequence);
  if (status) return status;
  if (to < 0 || to >= context->num_sequences) {
    return ckvl_leave(context, ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                                         "Expected a sequence from 0 to %d but found %d",
                                         context->num_sequences - 1, to));
  }
  return ckvl_leave(context, copy(context, sequence, to));
}

static ckv_status shift(ckv_llama_context *context, int32_t s, int32_t delta) {
  const ckv_llama_engine *engine = context->model->engine;
  ckvl_sequence *sequence = &context->sequences[s];
  if (sequence->next == 0 || delta == 0) return CKV_OK;
  if (!engine->host.llama_memory_can_shift(context->memory)) {
    return ckvl_fail(&context->error, CKV_ERROR_UNSUPPORTED,
                     "Expected a cache whose positions can shift but found one that cannot%s",
                     engine->host.llama_model_n_swa(context->model->model) > 0
                         ? ": a model with sliding windows needs them full"
                         : "");
  }
  ckvl_cells cells;
  const ckv_status status =
      ckvl_cells_read(&engine->api, context->ctx, s, 1, NULL, 0, &cells, &context->error);
  if (status) return status;
  const bool shared = cells.is_shared;
  const llama_pos oldest = cells.count ? cells.pos[0] : 0;
  ckvl_cells_free(&cells);
  if (shared) {
    return ckvl_fail(
        &context->error, CKV_ERROR_UNSUPPORTED,
        "Expected a sequence with cells of its own but found cells that a copy shares");
  }
  if ((int64_t)oldest + delta < 0 || (int64_t)sequence->next + delta > INT32_MAX) {
    return ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected a shift of at least %d positions but found %d", -oldest, delta);
  }
  engine->host.llama_memory_seq_add(context->memory, s, -1, -1, delta);
  sequence->next += delta;
  if (sequence->compacted_end > 0) sequence->compacted_end += delta;
  sequence->shift_pending = true;
  // Captured queries are rotated to the old positions.
  ckvl_capture_forget(&sequence->capture);
  return CKV_OK;
}

ckv_status ckv_llama_sequence_shift(ckv_llama_context *context, int32_t sequence, int32_t delta) {
  const ckv_status status = ckvl_enter(context, sequence);
  return status ? status : ckvl_leave(context, shift(context, sequence, delta));
}
