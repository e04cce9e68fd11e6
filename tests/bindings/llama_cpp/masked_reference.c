// For tests alone: llama.cpp with the whole cache, where each layer, or each of its kv heads, masks
// tokens instead of dropping them, and which tells how much attention each token gets. It shares no
// code with the bridge but the opening of a library.
//
// Attention nodes run one by one, and before each the engine's mask is overwritten with what that
// layer may see; where heads differ, it is replaced by one with a plane per query head.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <llama.h>

#include "library.h"

#define MAX_LAYERS 128
#define MAX_HEADS 16
#define MAX_MASKS 2
#define MINUS_INFINITY 0xFC00u

#define FUNCTIONS(X)                 \
  X(ggml_backend_dev_by_type)        \
  X(ggml_backend_load_all_from_path) \
  X(ggml_fp16_to_fp32)               \
  X(llama_context_default_params)    \
  X(llama_decode)                    \
  X(llama_free)                      \
  X(llama_get_logits_ith)            \
  X(llama_init_from_model)           \
  X(llama_log_set)                   \
  X(llama_model_default_params)      \
  X(llama_model_free)                \
  X(llama_model_get_vocab)           \
  X(llama_model_load_from_file)      \
  X(llama_vocab_n_tokens)

typedef struct masked_reference {
#define X(name) __typeof__(&name) name;
  FUNCTIONS(X)
#undef X
  struct llama_model *model;
  struct llama_context *ctx;
  int32_t position;
  int32_t num_dropping;                     // layers and heads that mask anything
  uint8_t *dropped[MAX_LAYERS][MAX_HEADS];  // by cell: 1 if the kv head may not see it
  int32_t num_heads[MAX_LAYERS];            // that mask: 1 is all of them
  int32_t num_cells[MAX_LAYERS];
  struct ggml_tensor planes, *replaced;
  struct {
    struct ggml_tensor *tensor;
    uint16_t *original;
  } masks[MAX_MASKS];
  int32_t window;  // rows whose attention is summed up, 0: none
  double
      *attention[MAX_LAYERS];  // [kv heads][cells] of the newest `window` tokens of the last call
  int32_t attention_heads, attention_cells;
} masked_reference;

#if defined(_WIN32)
#  define EXPORT __declspec(dllexport)
#else
#  define EXPORT __attribute__((visibility("default")))
#endif

EXPORT uint32_t masked_reference_version(void);
EXPORT masked_reference *masked_reference_new(const char *library, const char *directory,
                                              const char *model, int32_t context_size, int32_t type,
                                              int32_t threads);
EXPORT void masked_reference_free(masked_reference *r);
EXPORT int32_t masked_reference_drop(masked_reference *r, int32_t layer, int32_t head,
                                     const uint8_t *dropped, int32_t cells);
EXPORT void masked_reference_forget(masked_reference *r);
EXPORT int32_t masked_reference_decode(masked_reference *r, int32_t *tokens, int32_t count,
                                       int32_t window, float *logits);
EXPORT int32_t masked_reference_attention(masked_reference *r, int32_t layer, int32_t head,
                                          double *sums, int32_t cells);

uint32_t masked_reference_version(void) { return 1; }

static void no_log(enum ggml_log_level level, const char *text, void *user_data) {
  (void)level;
  (void)text;
  (void)user_data;
}

static int32_t layer_of(const struct ggml_tensor *node) {
  const struct ggml_tensor *keys = node->src[1];
  if (keys->op == GGML_OP_CPY) keys = keys->src[0];
  while (keys->view_src) keys = keys->view_src;
  return strncmp(keys->name, "cache_k_l", 9) == 0 ? atoi(keys->name + 9) : -1;
}

// What the engine itself put into the mask, remembered when it is first met in a decode call.
static const uint16_t *original_of(masked_reference *r, struct ggml_tensor *mask) {
  int32_t m = 0;
  while (m < MAX_MASKS && r->masks[m].tensor && r->masks[m].tensor != mask) m++;
  if (m == MAX_MASKS) abort();
  if (!r->masks[m].tensor) {
    const size_t bytes = (size_t)(mask->ne[0] * mask->ne[1]) * sizeof(uint16_t);
    r->masks[m].tensor = mask;
    r->masks[m].original = malloc(bytes);
    if (!r->masks[m].original) abort();
    memcpy(r->masks[m].original, mask->data, bytes);
  }
  return r->masks[m].original;
}

// For each kv head, the sum over its query heads and the newest rows of softmax(scale * q.k), cell by
// cell; f16 keys only.
static void sum_attention(masked_reference *r, const struct ggml_tensor *node, int32_t layer) {
  const struct ggml_tensor *q = node->src[0], *k = node->src[1], *mask = node->src[3];
  const int64_t cells = k->ne[1];
  double *logits = malloc(sizeof *logits * (size_t)cells);
  free(r->attention[layer]);
  r->attention[layer] = calloc((size_t)(cells * k->ne[2]), sizeof(double));
  r->attention_heads = (int32_t)k->ne[2];
  r->attention_cells = (int32_t)cells;
  if (!logits || !r->attention[layer] || k->type != GGML_TYPE_F16) abort();
  float scale;
  memcpy(&scale, node->op_params, sizeof scale);
  for (int64_t h = 0; h < q->ne[2]; h++) {
    double *sums = r->attention[layer] + h / (q->ne[2] / k->ne[2]) * cells;
    for (int64_t row = q->ne[1] - r->window; row < q->ne[1]; row++) {
      const float *query =
          (const float *)((const char *)q->data + h * (int64_t)q->nb[2] + row * (int64_t)q->nb[1]);
      const uint16_t *seen =
          (const uint16_t *)((const char *)mask->data + row * (int64_t)mask->nb[1] +
                             h % mask->ne[2] * (int64_t)mask->nb[2]);
      double sum = 0, most = -INFINITY;
      for (int64_t c = 0; c < cells; c++) {
        const ggml_fp16_t *key =
            (const ggml_fp16_t *)((const char *)k->data + c * (int64_t)k->nb[1] +
                                  h / (q->ne[2] / k->ne[2]) * (int64_t)k->nb[2]);
        double dot = 0;
        for (int64_t j = 0; j < q->ne[0]; j++) dot += query[j] * r->ggml_fp16_to_fp32(key[j]);
        logits[c] = seen[c] == MINUS_INFINITY ? -INFINITY : dot * scale;
        if (logits[c] > most) most = logits[c];
      }
      for (int64_t c = 0; c < cells; c++) sum += logits[c] = exp(logits[c] - most);
      for (int64_t c = 0; c < cells; c++) sums[c] += logits[c] / sum;
    }
  }
  free(logits);
}

// A plane of the mask for each query head, of what its kv head may see.
static void mask_heads(masked_reference *r, struct ggml_tensor *node, int32_t layer,
                       const uint16_t *original) {
  const struct ggml_tensor *mask = node->src[3];
  const int64_t heads = node->src[0]->ne[2], cells = mask->ne[0], plane = cells * mask->ne[1];
  r->planes = *mask;
  r->planes.ne[2] = heads;
  r->planes.nb[2] = (size_t)plane * sizeof(uint16_t);
  r->planes.nb[3] = (size_t)heads * r->planes.nb[2];
  uint16_t *data = malloc(r->planes.nb[3]);
  if (!data) abort();
  for (int64_t h = 0; h < heads; h++) {
    const uint8_t *dropped = r->dropped[layer][h / (heads / r->num_heads[layer])];
    for (int64_t i = 0; i < plane; i++) {
      const bool hide = dropped && i % cells < r->num_cells[layer] && dropped[i % cells];
      data[h * plane + i] = hide ? MINUS_INFINITY : original[i];
    }
  }
  r->planes.data = data;
  r->replaced = node->src[3];
  node->src[3] = &r->planes;
}

static bool on_node(struct ggml_tensor *node, bool ask, void *user_data) {
  masked_reference *r = user_data;
  if (!ask) {
    if (r->window > 0) sum_attention(r, node, layer_of(node));
    if (r->replaced) {
      node->src[3] = r->replaced;
      r->replaced = NULL;
      free(r->planes.data);
    }
    return true;
  }
  if (node->op != GGML_OP_FLASH_ATTN_EXT || r->num_dropping + r->window == 0) return false;
  const int32_t layer = layer_of(node);
  struct ggml_tensor *mask = node->src[3];
  const uint16_t *original = original_of(r, mask);
  uint16_t *now = mask->data;
  if (layer >= 0 && layer < MAX_LAYERS && r->num_heads[layer] > 1) {
    mask_heads(r, node, layer, original);
    return true;
  }
  for (int64_t row = 0; row < mask->ne[1]; row++) {
    for (int64_t cell = 0; cell < mask->ne[0]; cell++) {
      const int64_t at = row * mask->ne[0] + cell;
      const bool hide = layer >= 0 && layer < MAX_LAYERS && r->dropped[layer][0] &&
                        cell < r->num_cells[layer] && r->dropped[layer][0][cell];
      now[at] = hide ? MINUS_INFINITY : original[at];
    }
  }
  return true;
}

static bool open_engine(masked_reference *r, const char *path, const char *directory) {
  char error[256];
  void *library = ckvl_library_open(path, error, sizeof error);
  if (!library) return false;
  void *symbol;
#define X(name)                                 \
  symbol = ckvl_library_symbol(library, #name); \
  if (!symbol) return false;                    \
  memcpy(&r->name, &symbol, sizeof symbol);
  FUNCTIONS(X)
#undef X
  if (!r->ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU)) {
    r->llama_log_set(no_log, NULL);
    r->ggml_backend_load_all_from_path(directory);
  }
  return true;
}

masked_reference *masked_reference_new(const char *library, const char *directory,
                                       const char *model, int32_t context_size, int32_t type,
                                       int32_t threads) {
  masked_reference *r = calloc(1, sizeof *r);
  if (!r) return NULL;
  if (open_engine(r, library, directory)) {
    struct llama_model_params params = r->llama_model_default_params();
    params.n_gpu_layers = 0;  // masks are written in host memory
    r->model = r->llama_model_load_from_file(model, params);
  }
  if (r->model) {
    struct llama_context_params params = r->llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = (uint32_t)context_size;
    params.n_threads = params.n_threads_batch = threads;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.type_k = params.type_v = (enum ggml_type)type;
    params.kv_unified = true;
    params.op_offload = false;
    params.cb_eval = on_node;
    params.cb_eval_user_data = r;
    r->ctx = r->llama_init_from_model(r->model, params);
  }
  if (r->ctx) return r;
  masked_reference_free(r);
  return NULL;
}

void masked_reference_free(masked_reference *r) {
  if (r->ctx) r->llama_free(r->ctx);
  if (r->model) r->llama_model_free(r->model);
  masked_reference_forget(r);
  for (int32_t l = 0; l < MAX_LAYERS; l++) free(r->attention[l]);
  free(r);
}

// Nothing is masked any more.
void masked_reference_forget(masked_reference *r) {
  for (int32_t l = 0; l < MAX_LAYERS; l++) {
    for (int32_t h = 0; h < MAX_HEADS; h++) {
      free(r->dropped[l][h]);
      r->dropped[l][h] = NULL;
    }
    r->num_heads[l] = 0;
  }
  r->num_dropping = 0;
}

// From the next decode call on; cells are those of the tokens in order. Heads 0 to the last, one by
// one; head 0 alone is all of them.
int32_t masked_reference_drop(masked_reference *r, int32_t layer, int32_t head,
                              const uint8_t *dropped, int32_t cells) {
  if (layer < 0 || layer >= MAX_LAYERS || head < 0 || head >= MAX_HEADS ||
      r->num_heads[layer] != head) {
    return -1;
  }
  r->dropped[layer][head] = malloc((size_t)cells);
  if (!r->dropped[layer][head]) return -1;
  memcpy(r->dropped[layer][head], dropped, (size_t)cells);
  r->num_heads[layer]++;
  r->num_cells[layer] = cells;
  r->num_dropping++;
  return 0;
}

// The attention of the last call's newest `window` tokens to each cell, of one kv head.
int32_t masked_reference_attention(masked_reference *r, int32_t layer, int32_t head, double *sums,
                                   int32_t cells) {
  if (layer < 0 || layer >= MAX_LAYERS || !r->attention[layer] || head < 0 ||
      head >= r->attention_heads || cells > r->attention_cells) {
    return -1;
  }
  memcpy(sums, r->attention[layer] + (int64_t)head * r->attention_cells,
         sizeof *sums * (size_t)cells);
  return 0;
}

// Decodes at the end; writes the newest token's logits. window > 0: notes its attention.
int32_t masked_reference_decode(masked_reference *r, int32_t *tokens, int32_t count, int32_t window,
                                float *logits) {
  llama_seq_id sequence = 0;
  llama_pos *positions = malloc(sizeof *positions * (size_t)count);
  int32_t *owner_counts = malloc(sizeof *owner_counts * (size_t)count);
  llama_seq_id **owners = malloc(sizeof *owners * (size_t)count);
  int8_t *outputs = calloc((size_t)count, 1);
  int32_t result = -1;
  r->window = window;
  if (positions && owner_counts && owners && outputs) {
    for (int32_t i = 0; i < count; i++) {
      positions[i] = r->position + i;
      owner_counts[i] = 1;
      owners[i] = &sequence;
    }
    outputs[count - 1] = 1;
    struct llama_batch batch = {.n_tokens = count,
                                .token = tokens,
                                .pos = positions,
                                .n_seq_id = owner_counts,
                                .seq_id = owners,
                                .logits = outputs};
    result = r->llama_decode(r->ctx, batch);
  }
  free(positions);
  free(owner_counts);
  free(owners);
  free(outputs);
  for (int32_t m = 0; m < MAX_MASKS; m++) {
    free(r->masks[m].original);
    r->masks[m].original = NULL;
    r->masks[m].tensor = NULL;
  }
  if (result != 0) return result;
  r->position += count;
  const int32_t vocab_size = r->llama_vocab_n_tokens(r->llama_model_get_vocab(r->model));
  memcpy(logits, r->llama_get_logits_ith(r->ctx, count - 1), sizeof *logits * (size_t)vocab_size);
  return 0;
}
