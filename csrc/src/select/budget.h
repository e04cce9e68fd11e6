// How a budget is shared between the window, whole chunks, and what is left over.
#ifndef CKV_BUDGET_H
#define CKV_BUDGET_H

#include <stdint.h>

#include "../../include/chunkkv.h"

// A sequence of n tokens: [0, len) compete for `rest` places; [newest, n) stay.
typedef struct ckv_budget {
  int32_t len;     // n - window, the tokens that have scores
  int32_t rest;    // places for them
  int32_t newest;  // first of the tokens that stay: n - window, or later if the budget is smaller
} ckv_budget;

ckv_budget ckv_budget_split(const ckv_params *params, int32_t n);

// Appends [begin, end) at indices[count]; returns the new count.
int32_t ckv_keep_range(int32_t *indices, int32_t count, int32_t begin, int32_t end);

// Where the `length` neighbouring scores with the highest sum begin in [begin, end); the first on
// ties.
int32_t ckv_best_run(const float *scores, int32_t begin, int32_t end, int32_t length);

#endif
