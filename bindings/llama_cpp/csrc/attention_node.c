#include "attention_node.h"

#include <stdlib.h>
#include <string.h>

int32_t ckvl_dtype(enum ggml_type type) {
  switch (type) {
    case GGML_TYPE_F32:
      return CKV_F32;
    case GGML_TYPE_F16:
      return CKV_F16;
    case GGML_TYPE_BF16:
      return CKV_BF16;
    case GGML_TYPE_Q8_0:
      return CKV_Q8_0;
    case GGML_TYPE_Q4_0:
      return CKV_Q4_0;
    default:
      return -1;
  }
}

static struct ggml_tensor *base_of(struct ggml_tensor *tensor) {
  while (tensor->view_src) tensor = tensor->view_src;
  return tensor;
}

// An f32 cache is cast to f16 on its way into the node; what is wanted is the cache itself.
static struct ggml_tensor *before_cast(const ckvl_api *api, struct ggml_tensor *tensor) {
  return tensor->op == api->copy && tensor->src[0] ? tensor->src[0] : tensor;
}

// N of "<prefix>N", -1 if the name is not of that form.
static int32_t layer_number(const char *name, const char *prefix) {
  const size_t length = strlen(prefix);
  if (strncmp(name, prefix, length) != 0 || name[length] < '0' || name[length] > '9') return -1;
  char *end;
  const long number = strtol(name + length, &end, 10);
  return *end == '\0' && number < CKVL_MAX_LAYERS ? (int32_t)number : -1;
}

// One row per cell with all heads side by side, and the view starts at cell 0 of a stream.
static bool is_row_per_cell(const ckvl_api *api, const struct ggml_tensor *view,
                            const struct ggml_tensor *base, const ckvl_layer *layer) {
  return base->ne[3] == 1 && base->ne[2] == layer->streams &&
         view->view_offs == (size_t)layer->node_first * base->nb[2] &&
         view->ne[3] == layer->node_streams &&
         layer->node_first + layer->node_streams <= layer->streams &&
         (layer->node_streams == 1 || view->nb[3] == base->nb[2]) &&
         view->nb[0] == api->ggml_type_size(base->type) && view->nb[1] == base->nb[1] &&
         view->nb[2] == api->ggml_row_size(base->type, view->ne[0]) &&
         base->ne[0] == view->ne[0] * view->ne[2] &&
         base->nb[1] == api->ggml_row_size(base->type, base->ne[0]);
}

static ckv_status check_shape(const ckvl_api *api, const struct ggml_tensor *node,
                              const struct ggml_tensor *keys, const struct ggml_tensor *values,
                              const ckvl_layer *layer, ckvl_error *error) {
  const struct ggml_tensor *queries = node->src[0];
  const struct ggml_tensor *mask = node->src[3];
  float max_bias;
  memcpy(&max_bias, (const float *)(const void *)node->op_params + 1, sizeof max_bias);
  if (!is_row_per_cell(api, keys, layer->keys, layer) ||
      !is_row_per_cell(api, values, layer->values, layer)) {
    return ckvl_fail(error, CKV_ERROR_UNSUPPORTED,
                     "Expected a KV cache with one row per token, but layer %d has another layout",
                     layer->index);
  }
  if (max_bias != 0.0f) {
    return ckvl_fail(error, CKV_ERROR_UNSUPPORTED,
                     "Expected attention without ALiBi but found a bias of %g in layer %d",
                     (double)max_bias, layer->index);
  }
  if (queries->type != GGML_TYPE_F32 || queries->nb[0] != sizeof(float) ||
      queries->ne[3] != keys->ne[3] || queries->ne[0] != keys->ne[0] ||
      queries->ne[2] % keys->ne[2] != 0 || values->ne[2] != keys->ne[2]) {
    return ckvl_fail(error, CKV_ERROR_UNSUPPORTED,
                     "Expected f32 queries of the keys' head size but layer %d has others",
                     layer->index);
  }
  if (!mask || mask->type != GGML_TYPE_F16 || mask->ne[0] != keys->ne[1] ||
      mask->ne[1] < queries->ne[1] || mask->ne[2] != 1 || mask->ne[3] != keys->ne[3]) {
    return ckvl_fail(error, CKV_ERROR_UNSUPPORTED,
                     "Expected an f16 mask [cells, tokens] but layer %d has another", layer->index);
  }
  if (ckvl_dtype(layer->keys->type) < 0 || ckvl_dtype(layer->values->type) < 0) {
    return ckvl_fail(error, CKV_ERROR_UNSUPPORTED,
                     "Expected a KV cache in f32, f16, bf16, q8_0 or q4_0 but found %s and %s",
                     api->ggml_type_name(layer->keys->type),
                     api->ggml_type_name(layer->values->type));
  }
  return CKV_OK;
}

int32_t ckvl_cache_written(const struct ggml_tensor *node, struct ggml_tensor **base,
                           bool *is_keys) {
  if (!node->view_src) return -1;
  *base = base_of(node->view_src);
  const int32_t keys = layer_number((*base)->name, "cache_k_l");
  *is_keys = keys >= 0;
  return *is_keys ? keys : layer_number((*base)->name, "cache_v_l");
}

// The scheduler calls a backend's copy of a tensor "<backend>#<name>#<number>".
static int32_t copied_layer(const char *name, const char *prefix) {
  const char *const original = strchr(name, '#');
  if (!original || strncmp(original + 1, prefix, strlen(prefix)) != 0) return -1;
  char *end;
  const long number = strtol(original + 1 + strlen(prefix), &end, 10);
  return (*end == ' ' || *end == '#') && number >= 0 && number < CKVL_MAX_LAYERS ? (int32_t)number
                                                                                 : -1;
}

// The cache that a view is of; of a backend's copy, the cache that was copied.
static struct ggml_tensor *cache_of(const ckvl_caches *caches, struct ggml_tensor *view,
                                    bool is_keys) {
  struct ggml_tensor *base = base_of(view);
  const int32_t copied = copied_layer(base->name, is_keys ? "cache_k_l" : "cache_v_l");
  if (copied < 0 || !caches || copied >= caches->count) return base;
  const ckvl_cache *cache = &caches->data[copied];
  struct ggml_tensor *const own = is_keys ? cache->keys : cache->values;
  return own ? own : base;
}

ckv_status ckvl_attention_read(const ckvl_api *api, const ckvl_caches *caches,
                               const struct ggml_tensor *node, ckvl_layer *layer,
                               ckvl_error *error) {
  const struct ggml_tensor *queries = node->src[0];
  struct ggml_tensor *keys = before_cast(api, node->src[1]);
  struct ggml_tensor *values = before_cast(api, node->src[2]);
  layer->keys = cache_of(caches, keys, true);
  layer->values = cache_of(caches, values, false);
  layer->index = layer_number(layer->keys->name, "cache_k_l");
  if (layer->index < 0) {
    return ckvl_fail(error, CKV_ERROR_UNSUPPORTED,
                     "Expected attention to a cache tensor cache_k_l<N> but found '%s'",
                     layer->keys->name);
  }
  if (layer->values == layer->keys) {
    return ckvl_fail(error, CKV_ERROR_UNSUPPORTED,
                     "Expected values of their own but those of layer %d are a view of its keys "
                     "(MLA)",
                     layer->index);
  }
  if (layer_number(layer->values->name, "cache_v_l") != layer->index) {
    return ckvl_fail(error, CKV_ERROR_UNSUPPORTED,
                     "Expected the values of layer %d in cache_v_l%d but found '%s'", layer->index,
                     layer->index, layer->values->name);
  }
  layer->streams = (int32_t)layer->keys->ne[2];
  layer->node_streams = (int32_t)keys->ne[3];
  layer->node_first = layer->streams > 1 ? (int32_t)(keys->view_offs / layer->keys->nb[2]) : 0;
  const ckv_status status = check_shape(api, node, keys, values, layer, error);
  if (status) return status;
  layer->num_q_heads = (int32_t)queries->ne[2];
  layer->num_kv_heads = (int32_t)keys->ne[2];
  layer->key_dim = (int32_t)keys->ne[0];
  layer->value_dim = (int32_t)values->ne[0];
  memcpy(&layer->scale, (const float *)(const void *)node->op_params, sizeof layer->scale);
  memcpy(&layer->logit_softcap, (const float *)(const void *)node->op_params + 2,
         sizeof layer->logit_softcap);
  return CKV_OK;
}
