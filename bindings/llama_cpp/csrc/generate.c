// Sampling, and one token more: of one sequence, or of several at once.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "objects.h"

#define MAX_REPEAT_LAST \
  (1 << 20)  // tokens that the engine makes room for at once, and throws if there is none

static bool is_valid(const ckv_llama_sampler_params *p) {
  return p && p->struct_size == sizeof *p && isfinite(p->temperature) && p->temperature >= 0 &&
         p->top_k >= 0 && p->top_p > 0 && p->top_p <= 1 && p->min_p >= 0 && p->min_p <= 1 &&
         isfinite(p->repeat_penalty) && p->repeat_penalty > 0 && p->repeat_last >= 0;
}

// Takes over the sampler; false if there is none.
static bool add(const ckvl_host_api *host, struct llama_sampler *chain,
                struct llama_sampler *sampler) {
  if (sampler) host->llama_sampler_chain_add(chain, sampler);
  return sampler != NULL;
}

static bool fill_chain(const ckvl_host_api *host, struct llama_sampler *chain, int32_t vocab_size,
                       const ckv_llama_sampler_params *p) {
  bool ok = true;
  if (p->repeat_penalty != 1.0f && p->repeat_last > 0) {
    const int32_t last = p->repeat_last < MAX_REPEAT_LAST ? p->repeat_last : MAX_REPEAT_LAST;
    ok = add(host, chain,
             host->llama_sampler_init_penalties(vocab_size, last, p->repeat_penalty, 0.0f, 0.0f));
  }
  if (p->temperature == 0.0f) return ok && add(host, chain, host->llama_sampler_init_greedy());
  if (p->top_k > 0) ok = ok && add(host, chain, host->llama_sampler_init_top_k(p->top_k));
  if (p->top_p < 1.0f) ok = ok && add(host, chain, host->llama_sampler_init_top_p(p->top_p, 1));
  if (p->min_p > 0.0f) ok = ok && add(host, chain, host->llama_sampler_init_min_p(p->min_p, 1));
  ok = ok && add(host, chain, host->llama_sampler_init_temp(p->temperature));
  return ok && add(host, chain, host->llama_sampler_init_dist(p->seed));
}

// The tokens that end a generation, so that none of them is picked.
static bool find_ends(ckv_llama_sampler *sampler, int32_t vocab_size) {
  int32_t count = 0;
  for (int32_t t = 0; t < vocab_size; t++) {
    count += ckv_llama_is_end_of_generation(sampler->model, t) != 0;
  }
  sampler->ends = malloc(sizeof *sampler->ends * (size_t)(count + 1));
  if (!sampler->ends) return false;
  for (int32_t t = 0; t < vocab_size; t++) {
    if (ckv_llama_is_end_of_generation(sampler->model, t)) sampler->ends[sampler->num_ends++] = t;
  }
  return true;
}

ckv_llama_sampler *ckv_llama_sampler_new(ckv_llama_model *model,
                                         const ckv_llama_sampler_params *params) {
  if (!is_valid(params) || !model->model) return NULL;
  const ckvl_host_api *host = &model->engine->host;
  const int32_t vocab_size = host->llama_vocab_n_tokens(model->vocab);
  ckv_llama_sampler *sampler = calloc(1, sizeof *sampler);
  if (!sampler) return NULL;
  ckvl_model_retain(model);
  sampler->model = model;
  sampler->candidates = malloc(sizeof *sampler->candidates * (size_t)vocab_size);
  sampler->chain = host->llama_sampler_chain_init(host->llama_sampler_chain_default_params());
  if (sampler->candidates && sampler->chain &&
      fill_chain(host, sampler->chain, vocab_size, params) &&
      (!params->ignore_end || find_ends(sampler, vocab_size))) {
    return sampler;
  }
  ckv_llama_sampler_free(sampler);
  return NULL;
}

void ckv_llama_sampler_free(ckv_llama_sampler *sampler) {
  if (!sampler) return;
  if (sampler->chain) sampler->model->engine->host.llama_sampler_free(sampler->chain);
  free(sampler->candidates);
  free(sampler->ends);
  ckv_llama_model_free(sampler->model);
  free(sampler);
}

// The next token, -1 if the sampler picks none.
static int32_t pick(ckv_llama_sampler *sampler, const float *logits) {
  const ckvl_host_api *host = &sampler->model->engine->host;
  const int32_t vocab_size = host->llama_vocab_n_tokens(sampler->model->vocab);
  for (int32_t t = 0; t < vocab_size; t++) {
    sampler->candidates[t] = (llama_token_data){.id = t, .logit = logits[t]};
  }
  for (int32_t i = 0; i < sampler->num_ends; i++) {
    sampler->candidates[sampler->ends[i]].logit = -INFINITY;
  }
  llama_token_data_array array = {
      .data = sampler->candidates,
      .size = (size_t)vocab_size,
      .selected = -1,
  };
  host->llama_sampler_apply(sampler->chain, &array);
  if (array.selected < 0 || (size_t)array.selected >= array.size) return -1;
  const int32_t token = array.data[array.selected].id;
  host->llama_sampler_accept(sampler->chain, token);
  return token;
}

// Picks what comes next in a sequence.
static ckv_status choose(ckv_llama_context *context, int32_t s, ckv_llama_sampler *sampler,
                         int32_t *token, int32_t *is_end) {
  const ckvl_sequence *sequence = &context->sequences[s];
  if (sampler->model != context->model) {
    return ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected a sampler of the context's model but found another's");
  }
  if (!sequence->has_logits) {
    return ckvl_fail(
        &context->error, CKV_ERROR_INVALID_ARGUMENT,
        "Expected a sequence that ends with a prompt or a generated token but found %s",
        sequence->next ? "none of them last" : "an empty one");
  }
  *token = pick(sampler, sequence->logits);
  if (*token < 0) {
    return ckvl_fail(&context->error, CKV_ERROR_ENGINE,
                     "Expected the sampler to pick a token but it picked none");
  }
  *is_end = ckv_llama_is_end_of_generation(context->model, *token);
  return CKV_OK;
}

static ckv_status step(ckv_llama_context *context, int32_t s, ckv_llama_sampler *sampler,
                       int32_t *token, int32_t *is_end) {
  const ckv_status status = choose(context, s, sampler, token, is_end);
  if (status || *is_end) return status;
  // No queries are captured here unless they could not be had later: generating costs what it costs
  // without this library.
  return ckvl_decode(context, s, token, 1, context->sequences[s].windows_cut ? 0 : INT32_MAX,
                     CKVL_NEWEST_LOGITS);
}

ckv_status ckv_llama_generate_step(ckv_llama_context *context, int32_t sequence,
                                   ckv_llama_sampler *sampler, int32_t *token, int32_t *is_end) {
  const ckv_status status = ckvl_enter(context, sequence);
  if (status) return status;
  atomic_store(&context->cancelled, false);
  return ckvl_leave(context, step(context, sequence, sampler, token, is_end));
}

// The sequences must be different ones of the context, and not more than a batch holds.
static ckv_status check_sequences(ckv_llama_context *context, int32_t count,
                                  const int32_t *sequences) {
  if (count < 1 || count > context->num_sequences || count > context->batch_size) {
    return ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected 1 to %d sequences in batches of %d tokens but found %d",
                     context->num_sequences, context->batch_size, count);
  }
  for (int32_t i = 0; i < count; i++) {
    bool is_known = sequences[i] >= 0 && sequences[i] < context->num_sequences;
    for (int32_t j = 0; j < i; j++) is_known = is_known && sequences[i] != sequences[j];
    if (is_known) continue;
    return ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected different sequences from 0 to %d but found %d",
                     context->num_sequences - 1, sequences[i]);
  }
  return CKV_OK;
}

static ckv_status step_each(ckv_llama_context *context, int32_t count, const int32_t *sequences,
                            const uint64_t *samplers, int32_t *tokens, int32_t *are_ends) {
  int32_t going[CKVL_MAX_SEQUENCES];
  int32_t next[CKVL_MAX_SEQUENCES];
  int32_t num_going = 0;
  ckv_status status = check_sequences(context, count, sequences);
  for (int32_t i = 0; i < count && !status; i++) {
    ckv_llama_sampler *sampler = (ckv_llama_sampler *)(uintptr_t)samplers[i];
    status = choose(context, sequences[i], sampler, &tokens[i], &are_ends[i]);
    if (status || are_ends[i]) continue;
    going[num_going] = sequences[i];
    next[num_going++] = tokens[i];
  }
  if (status || num_going == 0) return status;
  return ckvl_decode_each(context, num_going, going, next);
}

ckv_status ckv_llama_generate_step_each(ckv_llama_context *context, int32_t count,
                                        const int32_t *sequences, const uint64_t *samplers,
                                        int32_t *tokens, int32_t *are_ends) {
  const ckv_status status = ckvl_enter(context, 0);
  if (status) return status;
  atomic_store(&context->cancelled, false);
  return ckvl_leave(context, step_each(context, count, sequences, samplers, tokens, are_ends));
}

ckv_status ckv_llama_logits(ckv_llama_context *context, int32_t s, float *logits, int32_t count) {
  ckv_status status = ckvl_enter(context, s);
  if (status) return status;
  const ckvl_sequence *sequence = &context->sequences[s];
  const int32_t vocab_size =
      context->model->engine->host.llama_vocab_n_tokens(context->model->vocab);
  if (!sequence->has_logits) {
    status = ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                       "Expected a sequence that ends with a prompt or a generated token but found "
                       "no logits in sequence %d",
                       s);
  } else if (!logits || count != vocab_size) {
    status = ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                       "Expected room for the %d logits of the vocabulary but found %d", vocab_size,
                       count);
  } else {
    memcpy(logits, sequence->logits, sizeof *logits * (size_t)vocab_size);
  }
  return ckvl_leave(context, status);
}
