// A sequence's serialised state, out and in.
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "objects.h"

int64_t ckv_llama_state_size(ckv_llama_context *context, int32_t sequence) {
  const ckv_status status = ckvl_enter(context, sequence);
  if (status) return -(int64_t)status;
  const size_t size = context->model->engine->api.llama_state_seq_get_size_ext(
      context->ctx, sequence, LLAMA_STATE_SEQ_FLAGS_NONE);
  ckvl_leave(context, CKV_OK);
  return (int64_t)size;
}

int64_t ckv_llama_state_get(ckv_llama_context *context, int32_t sequence, uint8_t *data,
                            int64_t size) {
  ckv_status status = ckvl_enter(context, sequence);
  if (!status && (size < 0 || (!data && size > 0))) {
    status = ckvl_leave(context, ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                                           "Expected room for a state but found %lld bytes at %p",
                                           (long long)size, (void *)data));
  }
  if (status) return -(int64_t)status;
  const size_t read = context->model->engine->api.llama_state_seq_get_data_ext(
      context->ctx, data, (size_t)size, sequence, LLAMA_STATE_SEQ_FLAGS_NONE);
  ckvl_leave(context, CKV_OK);
  return (int64_t)read;
}

// Takes over the newest of the known tokens: not more than the state has positions.
static void keep_tokens(ckvl_sequence *sequence, int32_t *known, int32_t count) {
  free(sequence->tokens);
  sequence->tokens = known;
  sequence->token_capacity = count;
  sequence->num_tokens = count < sequence->next ? count : sequence->next;
  memmove(known, known + (count - sequence->num_tokens),
          sizeof *known * (size_t)sequence->num_tokens);
}

ckv_status ckvl_state_set(ckv_llama_context *context, int32_t s, const uint8_t *data, size_t size,
                          const int32_t *tokens, int32_t num_tokens) {
  const ckvl_api *api = &context->model->engine->api;
  ckvl_sequence *sequence = &context->sequences[s];
  ckvl_state_summary summary;
  const ckv_status status =
      ckvl_state_check(data, size, &context->limits, &summary, &context->error);
  if (status) return status;
  int32_t *known = num_tokens > 0 ? malloc(sizeof *known * (size_t)num_tokens) : NULL;
  if (num_tokens > 0 && !known) {
    return ckvl_fail_memory(&context->error, sizeof *known * (size_t)num_tokens);
  }
  if (known) memcpy(known, tokens, sizeof *known * (size_t)num_tokens);
  // Nothing of what was there says anything about what comes.
  api->llama_memory_seq_rm(context->memory, s, -1, -1);
  ckvl_sequence_clear(sequence);
  ckvl_log_clear();
  const size_t written =
      api->llama_state_seq_set_data_ext(context->ctx, data, size, s, LLAMA_STATE_SEQ_FLAGS_NONE);
  if (written != size || api->llama_memory_seq_pos_max(context->memory, s) + 1 != summary.next) {
    free(known);
    api->llama_memory_seq_rm(context->memory, s, -1, -1);
    return ckvl_fail(&context->error, CKV_ERROR_ENGINE,
                     "Expected the engine to take %zu bytes of state but it took %zu: the sequence "
                     "is empty now: %s",
                     size, written, ckvl_log_text());
  }
  sequence->next = summary.next;
  sequence->has_hidden = ckvl_state_has_hidden(data, size);
  if (summary.next > 0) {
    ckvl_sums_void(&sequence->sums, "found a restored state without that of its tokens");
  }
  sequence->compacted_end = summary.compacted_end;
  sequence->windows_cut = context->model->engine->host.llama_model_n_swa(context->model->model) > 0;
  if (known) keep_tokens(sequence, known, num_tokens);
  return CKV_OK;
}

ckv_status ckv_llama_state_set(ckv_llama_context *context, int32_t s, const uint8_t *data,
                               int64_t size, const int32_t *tokens, int32_t num_tokens) {
  const ckv_status status = ckvl_enter(context, s);
  if (status) return status;
  if (size < 0 || (!data && size > 0) || num_tokens < 0 || (!tokens && num_tokens > 0)) {
    return ckvl_leave(
        context, ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                           "Expected a state and its tokens but found %lld bytes and %d tokens",
                           (long long)size, num_tokens));
  }
  return ckvl_leave(context, ckvl_state_set(context, s, data, (size_t)size, tokens, num_tokens));
}
