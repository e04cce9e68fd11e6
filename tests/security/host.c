// A host of libllama with the library in front of it, as if preloaded: reads a prompt of 90 tokens
// and prints how many cells it has then, and a half in the user's language.
//   host FOLDER MODEL
#include <dlfcn.h>
#include <llama.h>
#include <locale.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPT = 90 };

static void say_nothing(enum ggml_log_level level, const char *text, void *data) {
  (void)level, (void)text, (void)data;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  setlocale(LC_ALL, "");
  __typeof__(&ggml_backend_load_all_from_path) load;
  *(void **)&load = dlsym(RTLD_DEFAULT, "ggml_backend_load_all_from_path");
  if (!load) return 3;
  llama_log_set(say_nothing, NULL);
  load(argv[1]);
  struct llama_model_params model_params = llama_model_default_params();
  struct llama_model *model = llama_model_load_from_file(argv[2], model_params);
  if (!model) return 4;
  struct llama_context_params params = llama_context_default_params();
  params.n_ctx = 256;
  params.n_batch = params.n_ubatch = 128;
  params.n_threads = params.n_threads_batch = 1;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
  struct llama_context *ctx = llama_init_from_model(model, params);
  if (!ctx) return 5;
  struct llama_batch batch = llama_batch_init(PROMPT, 0, 1);
  for (int32_t i = 0; i < PROMPT; i++) {
    batch.token[i] = i * 37 % 89 + 3;
    batch.pos[i] = i;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = i == PROMPT - 1;
  }
  batch.n_tokens = PROMPT;
  if (llama_decode(ctx, batch) != 0) return 6;
  const size_t bytes = llama_state_seq_get_size(ctx, 0);
  uint8_t *state = malloc(bytes);
  int32_t cells = -1;
  if (!state || llama_state_seq_get_data(ctx, state, bytes, 0) != bytes) return 7;
  memcpy(&cells, state + 12, sizeof cells);
  printf("%d cells, %.1f\n", cells, 0.5);
  free(state);
  llama_batch_free(batch);
  llama_free(ctx);
  llama_model_free(model);
  return 0;
}
