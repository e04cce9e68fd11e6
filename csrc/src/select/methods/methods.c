#include "method.h"

#include <stddef.h>

#include "../budget.h"

typedef struct {
  const char *name;
  const ckv_method_ops *ops;
} entry;

static const entry METHODS[] = {
#define CKV_METHOD(number, name, ops) [number] = {name, &ops},
#include "methods.def"
#undef CKV_METHOD
};

#define NUM_METHODS ((int32_t)(sizeof METHODS / sizeof METHODS[0]))

const ckv_method_ops *ckv_method_get(int32_t method) {
  return method >= 0 && method < NUM_METHODS ? METHODS[method].ops : NULL;
}

const char *ckv_method_name(int32_t method) {
  return method >= 0 && method < NUM_METHODS ? METHODS[method].name : NULL;
}

static int32_t heads(ckv_heads kind, int32_t num_kv_heads) {
  if (kind == CKV_HEADS_NONE) return 0;
  return kind == CKV_HEADS_SHARED ? 1 : num_kv_heads;
}

int32_t ckv_score_heads(const ckv_params *params, int32_t num_kv_heads) {
  const ckv_method_ops *ops = params ? ckv_method_get(params->method) : NULL;
  return ops ? heads(ops->score_heads, num_kv_heads) : 0;
}

int32_t ckv_kept_heads(const ckv_params *params, int32_t num_kv_heads) {
  const ckv_method_ops *ops = params ? ckv_method_get(params->method) : NULL;
  return ops ? heads(ops->kept_heads, num_kv_heads) : 0;
}

int32_t ckv_layer_budget(const ckv_params *params, int32_t kv_len, int32_t layer,
                         int32_t num_layers) {
  const ckv_method_ops *ops = params ? ckv_method_get(params->method) : NULL;
  if (!ops || kv_len < 0 || layer < 0 || layer >= num_layers) return -1;
  return ops->layer_budget ? ops->layer_budget(params, kv_len, layer, num_layers) : params->budget;
}

int32_t ckv_kept_capacity(const ckv_params *params, int32_t kv_len) {
  if (!params || kv_len < 0) return 0;
  ckv_params first = *params;
  // No layer keeps more than the first of several.
  const int32_t budget = ckv_layer_budget(params, kv_len, 0, 2);
  if (budget > first.budget) first.budget = budget;
  return ckv_most_kept(&first, kv_len);
}

int32_t ckv_most_kept(const ckv_params *params, int32_t kv_len) {
  if (params->method == CKV_METHOD_FULL) return kv_len;
  // fill "none" keeps the whole window even where the budget is smaller.
  const int32_t most = params->fill == CKV_FILL_NONE && params->window > params->budget
                           ? params->window
                           : params->budget;
  return most < kv_len ? most : kv_len;
}
