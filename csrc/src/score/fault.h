// The first row of logits that cannot be normalised, found by many threads at once.
#ifndef CKV_SCORE_FAULT_H
#define CKV_SCORE_FAULT_H

#include "score.h"

// Lowest (sequence, query head, row) wins, so the text does not depend on the threads' order.
typedef _Atomic int64_t ckv_score_fault;

enum { CKV_FAULT_NOT_FINITE = 0, CKV_FAULT_ALL_MASKED = 1 };

#define CKV_SCORE_NO_FAULT INT64_MAX

static inline void ckv_score_fault_report(ckv_score_fault *fault, const ckv_query_view *queries,
                                          int32_t b, int32_t head, int32_t row, int32_t kind) {
  const int64_t key =
      ((((int64_t)b * queries->num_q_heads + head) * queries->window + row) << 1) | kind;
  int64_t seen = atomic_load(fault);
  while (key < seen && !atomic_compare_exchange_weak(fault, &seen, key)) {
  }
}

// CKV_OK, or the error text and CKV_ERROR_NUMERIC.
static inline ckv_status ckv_score_fault_status(ckv_context *ctx, const ckv_query_view *queries,
                                                int64_t key) {
  if (key == CKV_SCORE_NO_FAULT) return CKV_OK;
  const int64_t row = (key >> 1) % queries->window;
  const int64_t head = (key >> 1) / queries->window % queries->num_q_heads;
  const int64_t b = (key >> 1) / queries->window / queries->num_q_heads;
  return ckv_fail(ctx, CKV_ERROR_NUMERIC,
                  "Expected finite logits but found %s in sequence %lld, query head %lld, window "
                  "row %lld",
                  (key & 1) ? "none" : "NaN or infinity", (long long)b, (long long)head,
                  (long long)row);
}

#endif
