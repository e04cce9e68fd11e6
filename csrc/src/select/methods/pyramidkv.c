// pyramidkv: snapkv with budgets that fall linearly over the layers, the same in sum. Based on
// PyramidKV (arXiv 2406.02069, section 4.2) and the rule of its code: beta 20, the window on top.
#include <stddef.h>

#include "method.h"
#include "snapkv.h"

// How many times fewer tokens than on average the last layer keeps beside the window.
#define BETA 20

// The code rounds the step from layer to layer down, which lets the sum grow. Here each layer is
// rounded, and the lower half mirrors the upper one, so that the sum is num_layers * budget.
static int32_t budget_of_layer(const ckv_params *params, int32_t n, int32_t layer,
                               int32_t num_layers) {
  const int32_t window = params->window < n ? params->window : n;
  // Settings are not checked here: a window below 0 is refused by every stage.
  if (window < 0 || params->budget <= window || params->budget >= n || num_layers < 2) {
    return params->budget;
  }
  const int64_t mean = params->budget - window;
  int64_t most = 2 * mean - mean / BETA;
  if (most > n - window) most = n - window;
  const int64_t fall = 2 * (most - mean);  // from the first layer to the last
  const int64_t mirrored = num_layers - 1 - layer;
  if (layer == mirrored) return params->budget;
  const int64_t upper = layer < mirrored ? layer : mirrored;
  const int64_t tokens = most - upper * fall / (num_layers - 1);
  return (int32_t)(window + (layer < mirrored ? tokens : 2 * mean - tokens));
}

const ckv_method_ops ckv_method_pyramidkv = {
    .score_heads = CKV_HEADS_PER_KV,
    .kept_heads = CKV_HEADS_PER_KV,
    .finish = ckv_snapkv_finish,
    .select = ckv_snapkv_select,
    .scratch = ckv_snapkv_scratch,
    .layer_budget = budget_of_layer,
};
