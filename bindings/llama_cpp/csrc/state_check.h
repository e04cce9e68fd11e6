// A serialised state from outside, checked before the engine reads it: the engine takes a header at
// its word.
#ifndef CKVL_STATE_CHECK_H
#define CKVL_STATE_CHECK_H

#include "state_blob.h"

// What a context's caches can hold.
typedef struct ckvl_state_limits {
  int32_t num_caches;    // 1, or 2 with sliding windows; else states cannot be checked
  int32_t max_cells[2];  // of each
  bool values_transposed;
  enum ggml_type key_type, value_type;
} ckvl_state_limits;

// What a checked state says.
typedef struct ckvl_state_summary {
  llama_pos next;           // position after the newest token, 0: it is empty
  llama_pos compacted_end;  // 0: it has every position; else layers may differ below this one
} ckvl_state_summary;

ckv_status ckvl_state_check(const uint8_t *data, size_t size, const ckvl_state_limits *limits,
                            ckvl_state_summary *summary, ckvl_error *error);

#endif
