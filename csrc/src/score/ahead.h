// What the micro kernels do beside their products: the rows of the next tile's keys are asked for
// line by line.
#ifndef CKV_SCORE_AHEAD_H
#define CKV_SCORE_AHEAD_H

#include <stdint.h>

// Keeps loads of later steps behind it: hoisted, they would take more registers than there are.
#define CKV_SCORE_STEP() __asm__ volatile("" ::: "memory")

typedef struct ckv_score_ahead {
  const char *const *rows;
  int32_t left;  // rows
  int32_t at, row_bytes;
  int32_t lines;  // at a time
} ckv_score_ahead;

// In the micro kernel, where a line and the address of its page have long to arrive.
static inline __attribute__((always_inline)) void ckv_score_ask(ckv_score_ahead *ahead) {
  for (int32_t i = 0; i < ahead->lines && ahead->left > 0; i++) {
    __builtin_prefetch(*ahead->rows + ahead->at, 0, 2);
    ahead->at += 64;
    if (ahead->at < ahead->row_bytes) continue;
    ahead->at = 0;
    ahead->rows++;
    ahead->left--;
  }
}

#endif
