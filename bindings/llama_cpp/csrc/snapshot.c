// A sequence kept aside in memory, to go back to it as often as wanted.
#include <stdlib.h>
#include <string.h>

#include "objects.h"

struct ckv_llama_snapshot {
  ckv_llama_model *model;
  uint64_t origin;  // the number of the context that it was taken of
  uint8_t *state;   // NULL: nothing taken yet
  size_t state_bytes;
  int32_t *tokens;
  int32_t num_tokens;
  float *logits;  // [vocab_size]
  bool has_logits;
  ckvl_capture capture;
  bool has_sums;
  ckvl_sums sums;
};

ckv_llama_snapshot *ckv_llama_snapshot_new(ckv_llama_model *model) {
  ckv_llama_snapshot *snapshot = calloc(1, sizeof *snapshot);
  if (!snapshot) return NULL;
  ckvl_model_retain(model);
  snapshot->model = model;
  ckvl_capture_init(&snapshot->capture, &model->engine->api);
  return snapshot;
}

static void clear(ckv_llama_snapshot *snapshot) {
  free(snapshot->state);
  free(snapshot->tokens);
  free(snapshot->logits);
  ckvl_capture_free(&snapshot->capture);
  ckvl_sums_free(&snapshot->sums);
  snapshot->has_sums = false;
  snapshot->state = NULL;
  snapshot->tokens = NULL;
  snapshot->logits = NULL;
  snapshot->has_logits = false;
}

void ckv_llama_snapshot_free(ckv_llama_snapshot *snapshot) {
  if (!snapshot) return;
  clear(snapshot);
  ckv_llama_model_free(snapshot->model);
  free(snapshot);
}

static size_t logits_bytes(const ckv_llama_context *context) {
  return sizeof(float) *
         (size_t)context->model->engine->host.llama_vocab_n_tokens(context->model->vocab);
}

static ckv_status take(ckv_llama_context *context, int32_t s, ckv_llama_snapshot *snapshot) {
  const ckvl_api *api = &context->model->engine->api;
  const ckvl_sequence *sequence = &context->sequences[s];
  const size_t tokens_bytes = sizeof(int32_t) * (size_t)sequence->num_tokens;
  const size_t bytes =
      api->llama_state_seq_get_size_ext(context->ctx, s, LLAMA_STATE_SEQ_FLAGS_NONE);
  snapshot->state = malloc(bytes + 1);
  snapshot->tokens = malloc(tokens_bytes + 1);
  snapshot->logits = malloc(logits_bytes(context));
  if (!snapshot->state || !snapshot->tokens || !snapshot->logits) {
    return ckvl_fail_memory(&context->error, bytes + tokens_bytes);
  }
  const size_t read = api->llama_state_seq_get_data_ext(context->ctx, snapshot->state, bytes, s,
                                                        LLAMA_STATE_SEQ_FLAGS_NONE);
  if (read != bytes) {
    return ckvl_fail(&context->error, CKV_ERROR_ENGINE,
                     "Expected %zu bytes of state but the engine gave %zu", bytes, read);
  }
  snapshot->state_bytes = bytes;
  if (tokens_bytes) memcpy(snapshot->tokens, sequence->tokens, tokens_bytes);
  snapshot->num_tokens = sequence->num_tokens;
  snapshot->has_logits = sequence->has_logits;
  if (sequence->has_logits) memcpy(snapshot->logits, sequence->logits, logits_bytes(context));
  snapshot->origin = context->number;
  snapshot->has_sums = context->accumulates;
  const ckv_status status = snapshot->has_sums
                                ? ckvl_sums_copy(&sequence->sums, &snapshot->sums, &context->error)
                                : CKV_OK;
  if (status) return status;
  return ckvl_capture_copy(&snapshot->capture, &sequence->capture, &context->error);
}

static ckv_status check_model(ckv_llama_context *context, const ckv_llama_snapshot *snapshot) {
  if (snapshot->model == context->model) return CKV_OK;
  return ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                   "Expected a snapshot of the context's model but found another's");
}

ckv_status ckv_llama_snapshot_take(ckv_llama_context *context, int32_t sequence,
                                   ckv_llama_snapshot *snapshot) {
  ckv_status status = ckvl_enter(context, sequence);
  if (status) return status;
  status = check_model(context, snapshot);
  if (!status) {
    clear(snapshot);
    status = take(context, sequence, snapshot);
    if (status) clear(snapshot);
  }
  return ckvl_leave(context, status);
}

// Copies for a sequence to take over.
typedef struct belongings {
  float *logits;
  ckvl_capture capture;
  ckvl_sums sums;
} belongings;

static ckv_status copy_belongings(ckv_llama_context *context, const ckv_llama_snapshot *snapshot,
                                  belongings *copy) {
  ckvl_capture_init(&copy->capture, snapshot->capture.api);
  copy->logits = malloc(logits_bytes(context));
  if (!copy->logits) return ckvl_fail_memory(&context->error, logits_bytes(context));
  if (snapshot->has_logits) memcpy(copy->logits, snapshot->logits, logits_bytes(context));
  const ckv_status status = ckvl_sums_copy(&snapshot->sums, &copy->sums, &context->error);
  // Layers are known by their tensors: another context has others.
  if (status || snapshot->origin != context->number) return status;
  return ckvl_capture_copy(&copy->capture, &snapshot->capture, &context->error);
}

static void free_belongings(belongings *copy) {
  free(copy->logits);
  ckvl_capture_free(&copy->capture);
  ckvl_sums_free(&copy->sums);
}

static ckv_status restore(ckv_llama_context *context, int32_t s,
                          const ckv_llama_snapshot *snapshot) {
  if (!snapshot->state) {
    return ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected a snapshot that holds a sequence but found a new one");
  }
  belongings copy = {0};
  ckv_status status = copy_belongings(context, snapshot, &copy);
  if (!status) {
    status = ckvl_state_set(context, s, snapshot->state, snapshot->state_bytes, snapshot->tokens,
                            snapshot->num_tokens);
  }
  if (status) {
    free_belongings(&copy);
    return status;
  }
  ckvl_sequence *sequence = &context->sequences[s];
  belongings old = {.logits = sequence->logits};
  ckvl_capture_init(&old.capture, snapshot->capture.api);
  sequence->logits = copy.logits;
  sequence->has_logits = snapshot->has_logits;
  if (snapshot->origin == context->number) {
    old.capture = sequence->capture;
    sequence->capture = copy.capture;
  }
  if (snapshot->has_sums && context->accumulates) {
    old.sums = sequence->sums;
    sequence->sums = copy.sums;
  } else {
    ckvl_sums_free(&copy.sums);
  }
  free_belongings(&old);
  return CKV_OK;
}

ckv_status ckv_llama_snapshot_restore(ckv_llama_context *context, int32_t sequence,
                                      const ckv_llama_snapshot *snapshot) {
  ckv_status status = ckvl_enter(context, sequence);
  if (status) return status;
  status = check_model(context, snapshot);
  if (!status) status = restore(context, sequence, snapshot);
  return ckvl_leave(context, status);
}
