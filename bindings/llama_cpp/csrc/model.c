#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "objects.h"

#define PROGRESS_ONE 65536

ckv_llama_model *ckv_llama_model_new(ckv_llama_engine *engine) {
  ckv_llama_model *model = calloc(1, sizeof *model);
  if (!model) return NULL;
  atomic_init(&model->references, 1);
  atomic_init(&model->progress, 0);
  atomic_init(&model->cancelled, false);
  ckvl_engine_retain(engine);
  model->engine = engine;
  return model;
}

void ckvl_model_retain(ckv_llama_model *model) { atomic_fetch_add(&model->references, 1); }

void ckv_llama_model_free(ckv_llama_model *model) {
  if (!model || atomic_fetch_sub(&model->references, 1) != 1) return;
  if (model->model) model->engine->host.llama_model_free(model->model);
  ckv_llama_engine_free(model->engine);
  free(model);
}

const char *ckv_llama_model_error(const ckv_llama_model *model) { return model->error.text; }

double ckv_llama_model_progress(const ckv_llama_model *model) {
  return (double)atomic_load(&model->progress) / PROGRESS_ONE;
}

void ckv_llama_model_cancel(ckv_llama_model *model) { atomic_store(&model->cancelled, true); }

static bool on_progress(float progress, void *user_data) {
  ckv_llama_model *model = user_data;
  atomic_store(&model->progress, (int)(progress * PROGRESS_ONE));
  return !atomic_load(&model->cancelled);
}

ckv_status ckv_llama_model_load(ckv_llama_model *model, const char *path,
                                const ckv_llama_model_params *params) {
  const ckvl_host_api *host = &model->engine->host;
  model->error.text[0] = '\0';
  if (!params || params->struct_size != sizeof *params || params->reserved != 0 || model->model ||
      !model->engine->is_open) {
    return ckvl_fail(&model->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected params of %zu bytes for a model that is not yet loaded, and an open "
                     "engine",
                     sizeof *params);
  }
  struct llama_model_params own = host->llama_model_default_params();
  own.n_gpu_layers = params->gpu_layers;
  own.load_mode = params->use_mmap ? LLAMA_LOAD_MODE_MMAP : LLAMA_LOAD_MODE_NONE;
  own.progress_callback = on_progress;
  own.progress_callback_user_data = model;
  ckvl_log_clear();
  model->model = host->llama_model_load_from_file(path, own);
  if (!model->model) {
    if (atomic_load(&model->cancelled)) {
      return ckvl_fail(&model->error, CKV_ERROR_CANCELLED, "Loading %s was cancelled", path);
    }
    return ckvl_fail(&model->error, CKV_ERROR_ENGINE,
                     "Expected a model in GGUF format at %s but found: %s", path, ckvl_log_text());
  }
  model->vocab = host->llama_model_get_vocab(model->model);
  atomic_store(&model->progress, PROGRESS_ONE);
  return CKV_OK;
}

ckv_status ckv_llama_model_get_info(ckv_llama_model *model, ckv_llama_model_info *info) {
  const ckvl_host_api *host = &model->engine->host;
  if (!info || info->struct_size != sizeof *info || !model->model) {
    return ckvl_fail(&model->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected info of %zu bytes and a loaded model", sizeof *info);
  }
  *info = (ckv_llama_model_info){
      .struct_size = sizeof *info,
      .vocab_size = host->llama_vocab_n_tokens(model->vocab),
      .trained_context = host->llama_model_n_ctx_train(model->model),
      .num_layers = host->llama_model_n_layer(model->model),
      .embedding_size = host->llama_model_n_embd(model->model),
      .num_q_heads = host->llama_model_n_head(model->model),
      .num_kv_heads = host->llama_model_n_head_kv(model->model),
      .sliding_window = host->llama_model_n_swa(model->model),
      .bos = host->llama_vocab_bos(model->vocab),
      .eos = host->llama_vocab_eos(model->vocab),
      .eot = host->llama_vocab_eot(model->vocab),
      .adds_bos = host->llama_vocab_get_add_bos(model->vocab),
      .size_bytes = (int64_t)host->llama_model_size(model->model),
      .num_parameters = (int64_t)host->llama_model_n_params(model->model),
  };
  return CKV_OK;
}
