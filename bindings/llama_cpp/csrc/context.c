#include <stdlib.h>
#include <string.h>

#include "eval_hook.h"
#include "log.h"
#include "objects.h"

// Whose queries are in memory that the system cannot page out: megabytes each.
#define PINNED_SEQUENCES 8

static bool is_aborted(void *user_data) {
  return atomic_load(&((ckv_llama_context *)user_data)->cancelled);
}

ckv_llama_context *ckv_llama_context_new(ckv_llama_model *model) {
  ckv_llama_context *context = calloc(1, sizeof *context);
  if (!context) return NULL;
  atomic_flag_clear(&context->busy);
  atomic_init(&context->cancelled, false);
  ckvl_model_retain(model);
  context->model = model;
  context->prefill.sequence = -1;
  static atomic_uint_fast64_t made;
  context->number = atomic_fetch_add(&made, 1) + 1;
  return context;
}

// Everything that init made.
static void tear_down(ckv_llama_context *context) {
  if (context->ctx) context->model->engine->host.llama_free(context->ctx);
  ckvl_hook_forget(context);
  ckvl_worker_pool_free(&context->workers);
  for (int32_t s = 0; context->sequences && s < context->num_sequences; s++) {
    ckvl_capture_free(&context->sequences[s].capture);
    ckvl_sums_free(&context->sequences[s].sums);
    free(context->sequences[s].tokens);
    free(context->sequences[s].logits);
  }
  ckv_context_free(context->ckv);
  ckvl_devices_free(&context->devices);
  ckvl_kept_free(&context->kept);
  free(context->prefill.sliding_blob);
  ckvl_sums_free(&context->prefill.sums);
  ckvl_accumulator_free(&context->accumulator);
  ckvl_hiding_free(&context->hiding);
  free(context->sequences);
  free(context->positions);
  free(context->owner_counts);
  free(context->owners);
  free(context->outputs);
  context->ctx = NULL;
  context->ckv = NULL;
  context->sequences = NULL;
  context->positions = NULL;
  context->owner_counts = NULL;
  context->owners = NULL;
  context->outputs = NULL;
}

void ckv_llama_context_free(ckv_llama_context *context) {
  if (!context) return;
  tear_down(context);
  ckv_llama_model_free(context->model);
  free(context);
}

const char *ckv_llama_context_error(const ckv_llama_context *context) {
  return context->error.text;
}

void ckv_llama_context_cancel(ckv_llama_context *context) {
  atomic_store(&context->cancelled, true);
}

static enum ggml_type ggml_type_of(int32_t dtype) {
  switch (dtype) {
    case CKV_F32:
      return GGML_TYPE_F32;
    case CKV_F16:
      return GGML_TYPE_F16;
    case CKV_BF16:
      return GGML_TYPE_BF16;
    case CKV_Q8_0:
      return GGML_TYPE_Q8_0;
    case CKV_Q4_0:
      return GGML_TYPE_Q4_0;
    default:
      return GGML_TYPE_COUNT;
  }
}

static ckv_status check_params(ckv_llama_context *context, const ckv_llama_context_params *p) {
  ckvl_error *error = &context->error;
  if (!p || p->struct_size != sizeof *p || context->ctx || !context->model->model) {
    return ckvl_fail(
        error, CKV_ERROR_INVALID_ARGUMENT,
        "Expected params of %zu bytes for a context that is not yet initialised, and a "
        "loaded model",
        sizeof *p);
  }
  if (p->context_size < 0 || p->batch_size < 1 || p->micro_batch_size < 1) {
    return ckvl_fail(
        error, CKV_ERROR_INVALID_ARGUMENT,
        "Expected a context size of at least 0 and batch sizes of at least 1 token but "
        "found %d, %d and %d",
        p->context_size, p->batch_size, p->micro_batch_size);
  }
  if (p->max_outputs < 0 || p->max_outputs > p->batch_size) {
    return ckvl_fail(error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected 0 to %d outputs, as many as a batch has tokens, but found %d",
                     p->batch_size, p->max_outputs);
  }
  if (p->num_sequences < 1 || p->num_sequences > CKVL_MAX_SEQUENCES) {
    return ckvl_fail(error, CKV_ERROR_INVALID_ARGUMENT, "Expected 1 to %d sequences but found %d",
                     CKVL_MAX_SEQUENCES, p->num_sequences);
  }
  if (ggml_type_of(p->key_type) == GGML_TYPE_COUNT ||
      ggml_type_of(p->value_type) == GGML_TYPE_COUNT) {
    return ckvl_fail(error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected keys and values in f32, f16, bf16, q8_0 or q4_0 but found type "
                     "numbers %d and %d",
                     p->key_type, p->value_type);
  }
  return CKV_OK;
}

// Every sequence's newest logits, or as many of one sequence as are wanted. More than a batch has, where
// there are more sequences than that.
static int32_t max_outputs(const ckv_llama_context_params *p) {
  return p->max_outputs > p->num_sequences ? p->max_outputs : p->num_sequences;
}

static struct llama_context *make_engine_context(ckv_llama_context *context,
                                                 const ckv_llama_context_params *p,
                                                 int32_t num_threads) {
  const ckvl_host_api *host = &context->model->engine->host;
  struct llama_context_params own = host->llama_context_default_params();
  own.n_ctx = (uint32_t)p->context_size;
  own.n_batch = (uint32_t)p->batch_size;
  own.n_ubatch = (uint32_t)p->micro_batch_size;
  own.n_seq_max = (uint32_t)p->num_sequences;
  own.n_outputs_max = (uint32_t)max_outputs(p);
  own.n_threads = own.n_threads_batch = num_threads;
  own.type_k = ggml_type_of(p->key_type);
  own.type_v = ggml_type_of(p->value_type);
  own.flash_attn_type =
      p->flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  own.kv_unified = true;
  own.swa_full = p->full_sliding_window != 0;
  own.no_perf = true;
  own.cb_eval = ckvl_on_node;
  own.cb_eval_user_data = context;
  own.abort_callback = is_aborted;
  own.abort_callback_data = context;
  return host->llama_init_from_model(context->model->model, own);
}

// What states may say, told by the new context itself: without cells each cache is two counts.
static void find_limits(ckv_llama_context *context, const ckv_llama_context_params *p) {
  const ckv_llama_engine *engine = context->model->engine;
  const size_t empty =
      engine->api.llama_state_seq_get_size_ext(context->ctx, 0, LLAMA_STATE_SEQ_FLAGS_NONE);
  const int64_t cells = engine->host.llama_n_ctx(context->ctx);
  // As the engine sizes the cache of sliding windows.
  int64_t sliding =
      (int64_t)engine->host.llama_model_n_swa(context->model->model) * p->num_sequences +
      engine->host.llama_n_ubatch(context->ctx);
  if (sliding > cells || p->full_sliding_window) sliding = cells;
  context->limits = (ckvl_state_limits){
      .num_caches = empty == CKVL_BLOB_HEADER_BYTES + 8    ? 1
                    : empty == CKVL_BLOB_HEADER_BYTES + 16 ? 2
                                                           : 0,
      .max_cells = {(int32_t)cells, (int32_t)((sliding + 255) / 256 * 256)},
      .values_transposed = !p->flash_attention,
      .key_type = ggml_type_of(p->key_type),
      .value_type = ggml_type_of(p->value_type),
  };
}

static ckv_status allocate(ckv_llama_context *context, int32_t num_sequences) {
  const ckv_llama_engine *engine = context->model->engine;
  context->batch_size = (int32_t)engine->host.llama_n_batch(context->ctx);
  const size_t batch = (size_t)context->batch_size;
  context->sequences = calloc((size_t)num_sequences, sizeof *context->sequences);
  context->positions = malloc(sizeof *context->positions * batch);
  context->owner_counts = malloc(sizeof *context->owner_counts * batch);
  context->owners = malloc(sizeof *context->owners * batch);
  context->outputs = malloc(sizeof *context->outputs * batch);
  if (!context->sequences || !context->positions || !context->owner_counts || !context->owners ||
      !context->outputs) {
    return ckvl_fail_memory(&context->error, sizeof *context->sequences * (size_t)num_sequences);
  }
  context->num_sequences = num_sequences;
  for (int32_t s = 0; s < num_sequences; s++) {
    ckvl_capture_init(&context->sequences[s].capture, &engine->api);
    context->sequences[s].capture.has_one_mask =
        engine->host.llama_model_n_swa(context->model->model) == 0;
    if (s < PINNED_SEQUENCES) context->sequences[s].capture.pins = &engine->host;
  }
  return CKV_OK;
}

ckv_status ckv_llama_context_init(ckv_llama_context *context,
                                  const ckv_llama_context_params *params) {
  context->error.text[0] = '\0';
  ckv_status status = check_params(context, params);
  if (status) return status;
  ckv_context_params own;
  ckv_context_default_params(&own);
  own.num_threads = params->num_threads;
  own.isa = params->isa;
  status = ckv_context_create(&own, &context->ckv);
  if (status) {
    return ckvl_fail(&context->error, status,
                     "Expected to run with %d threads and instruction set %d but found that this "
                     "machine cannot",
                     params->num_threads, params->isa);
  }
  ckvl_log_clear();
  context->ctx = make_engine_context(context, params, ckv_context_num_threads(context->ckv));
  if (!context->ctx) {
    status = ckvl_fail(&context->error, CKV_ERROR_ENGINE,
                       "Expected the engine to make a context but found: %s", ckvl_log_text());
  } else {
    context->memory = context->model->engine->api.llama_get_memory(context->ctx);
    context->flash_attention = params->flash_attention != 0;
    context->accumulates = params->accumulate_attention != 0;
    context->accumulator =
        (ckvl_accumulator){.api = &context->model->engine->api, .ckv = context->ckv};
    context->hiding.api = &context->model->engine->api;
    ckvl_worker_pool_attach(&context->workers, &context->model->engine->host, context->ctx,
                            ckv_context_num_threads(context->ckv));
    context->max_outputs = max_outputs(params);
    find_limits(context, params);
    status = allocate(context, params->num_sequences);
  }
  if (!status && !context->memory) {
    status = ckvl_fail(&context->error, CKV_ERROR_UNSUPPORTED,
                       "Expected a model with a KV cache but found one without");
  }
  if (status) tear_down(context);
  return status;
}

ckv_status ckv_llama_context_get_info(ckv_llama_context *context, ckv_llama_context_info *info) {
  if (!info || info->struct_size != sizeof *info || !context->ctx) {
    return ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected info of %zu bytes and an initialised context", sizeof *info);
  }
  const ckvl_host_api *host = &context->model->engine->host;
  *info = (ckv_llama_context_info){
      .struct_size = sizeof *info,
      .context_size = (int32_t)host->llama_n_ctx(context->ctx),
      .batch_size = context->batch_size,
      .micro_batch_size = (int32_t)host->llama_n_ubatch(context->ctx),
      .num_sequences = context->num_sequences,
      .num_threads = ckv_context_num_threads(context->ckv),
      .isa = ckv_context_isa(context->ckv),
      .is_unhooked = atomic_load(&context->scheduler) != NULL,
  };
  return CKV_OK;
}

static ckv_status enter(ckv_llama_context *context) {
  if (atomic_flag_test_and_set(&context->busy)) return CKV_ERROR_BUSY;
  context->error.text[0] = '\0';
  if (context->ctx) return CKV_OK;
  return ckvl_leave(context, ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                                       "Expected an initialised context but found a new one"));
}

ckv_status ckvl_enter_reading(ckv_llama_context *context, int32_t sequence) {
  const ckv_status status = enter(context);
  if (status) return status;
  if (sequence >= 0 && sequence < context->num_sequences) return CKV_OK;
  return ckvl_leave(context, ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                                       "Expected a sequence from 0 to %d but found %d",
                                       context->num_sequences - 1, sequence));
}

ckv_status ckvl_enter(ckv_llama_context *context, int32_t sequence) {
  const ckv_status status = ckvl_enter_reading(context, sequence);
  if (status || context->prefill.sequence < 0) return status;
  return ckvl_leave(context, ckvl_fail(&context->error, CKV_ERROR_BUSY,
                                       "Expected no prompt to be going in but found one"));
}

ckv_status ckvl_enter_prefill(ckv_llama_context *context) {
  const ckv_status status = enter(context);
  if (status || context->prefill.sequence >= 0) return status;
  return ckvl_leave(context, ckvl_fail(&context->error, CKV_ERROR_INVALID_ARGUMENT,
                                       "Expected a prompt to be going in but found none"));
}

ckv_status ckvl_leave(ckv_llama_context *context, ckv_status status) {
  atomic_flag_clear(&context->busy);
  return status;
}
