// The attention that a sequence's tokens have got, out and in.
#include "objects.h"

static ckv_status check(ckv_llama_context *context, const ckvl_sums *sums) {
  if (!context->accumulates) {
    return ckvl_fail(
        &context->error, CKV_ERROR_INVALID_ARGUMENT,
        "Expected a context that adds up attention but found one that does not: make it "
        "with accumulate_attention");
  }
  if (sums->status) context->error = sums->reason;
  return sums->status;
}

int64_t ckv_llama_attention_size(ckv_llama_context *context, int32_t sequence) {
  ckv_status status = ckvl_enter(context, sequence);
  if (status) return -(int64_t)status;
  const ckvl_sums *sums = &context->sequences[sequence].sums;
  status = check(context, sums);
  const size_t bytes = ckvl_sums_bytes(sums);
  ckvl_leave(context, CKV_OK);
  return status ? -(int64_t)status : (int64_t)bytes;
}

int64_t ckv_llama_attention_get(ckv_llama_context *context, int32_t sequence, uint8_t *data,
                                int64_t size) {
  ckv_status status = ckvl_enter(context, sequence);
  if (status) return -(int64_t)status;
  const ckvl_sums *sums = &context->sequences[sequence].sums;
  const size_t bytes = ckvl_sums_bytes(sums);
  status = check(context, sums);
  if (!status && (!data || size < 0 || (size_t)size < bytes)) {
    status = ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                       "Expected room for %zu bytes but found %lld", bytes, (long long)size);
  }
  if (!status) ckvl_sums_write(sums, data);
  ckvl_leave(context, CKV_OK);
  return status ? -(int64_t)status : (int64_t)bytes;
}

static ckv_status set(ckv_llama_context *context, int32_t s, const uint8_t *data, int64_t size) {
  ckvl_sequence *sequence = &context->sequences[s];
  if (!context->accumulates) return check(context, &sequence->sums);
  if (!data || size < 0) {
    return ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected bytes of attention but found %lld", (long long)size);
  }
  ckvl_cells cells = {0};
  const ckv_status status = ckvl_cells_read(&context->model->engine->api, context->ctx, s, 1, NULL,
                                            0, &cells, &context->error);
  const int32_t tokens = cells.count;
  ckvl_cells_free(&cells);
  if (status) return status;
  return ckvl_sums_read(&sequence->sums, data, (size_t)size, tokens, &context->error);
}

ckv_status ckv_llama_attention_set(ckv_llama_context *context, int32_t sequence,
                                   const uint8_t *data, int64_t size) {
  const ckv_status status = ckvl_enter(context, sequence);
  return status ? status : ckvl_leave(context, set(context, sequence, data, size));
}
