// Adds up the attention of every query of a decode call, graph by graph while it is computed.
#ifndef CKVL_ACCUMULATOR_H
#define CKVL_ACCUMULATOR_H

#include "capture.h"
#include "staged.h"
#include "sums.h"

// What one layer's cells have got in this call.
typedef struct ckvl_gain {
  int32_t index, heads;
  int32_t cells;  // of the cache
  int32_t seen;   // tokens of the call whose attention is in
  bool slides;    // cells went out of sight: a sliding window
  int32_t mask;   // of the accumulator's masks
  double *sums;   // [heads][cells]
} ckvl_gain;

// The cells of one graph's tokens: first those that its first token sees, then one per further token.
typedef struct ckvl_order {
  const struct ggml_tensor *tensor;  // the mask, NULL: none
  int32_t seen;                      // tokens of the call before the graph
  int32_t *cells;
  int32_t count, capacity;
  bool slides;
} ckvl_order;

typedef struct ckvl_accumulator {
  const ckvl_api *api;
  ckv_context *ckv;
  bool is_on;  // between begin and end
  ckvl_gain *layers;
  int32_t num_layers;
  ckvl_order orders[CKVL_MAX_MASKS];
  uint16_t *halves;  // two rows of a mask
  size_t halves_capacity;
  float *scores;
  size_t scores_capacity;
  ckvl_staged queries, keys;
  ckv_status status;
  ckvl_error reason;
} ckvl_accumulator;

void ckvl_accumulator_free(ckvl_accumulator *accumulator);

// Around a decode call whose batch is one sequence's alone.
void ckvl_accumulator_begin(ckvl_accumulator *accumulator);

// Whether an attention node is to be shown after it was computed.
bool ckvl_accumulator_wants(const ckvl_accumulator *accumulator, const struct ggml_tensor *node);

// An attention node that has been computed. `is_own_mask`: the mask is as only this layer sees it.
void ckvl_accumulator_add(ckvl_accumulator *accumulator, const struct ggml_tensor *node,
                          bool is_own_mask);

// Adds what the call's `num_tokens` tokens gave to the sums; `capture` knows their cells. Sums that
// cannot go on are void and say why.
void ckvl_accumulator_end(ckvl_accumulator *accumulator, struct llama_context *ctx,
                          llama_seq_id seq, const ckvl_capture *capture, int32_t num_tokens,
                          ckvl_sums *sums);

#endif
