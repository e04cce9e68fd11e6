// Cells that are hidden from one layer, where layers keep different numbers of tokens: keys of such a
// cell are all zero in that layer, which keys of no token are. So the cache itself says what is
// hidden, wherever the engine moves or copies cells, and in saved states; rotating zeros for a shift
// of positions leaves zeros.
//
// Before a layer's attention the mask's columns of its hidden cells become -inf, so that they get no
// attention at all: exactly as if they were not there. After it the mask is put back.
#ifndef CKVL_HIDDEN_H
#define CKVL_HIDDEN_H

#include "capture.h"
#include "staged.h"

// Whether a row of keys is all zero, of either sign.
bool ckvl_is_hidden(enum ggml_type type, const uint8_t *row, size_t bytes);

// Whether a saved state, already checked, has hidden cells.
bool ckvl_state_has_hidden(const uint8_t *data, size_t size);

typedef struct ckvl_hiding {
  const ckvl_api *api;
  bool is_on;                // between begin and end
  bool is_mixed;             // tokens are of several sequences, each of which sees other cells
  int32_t written;           // the layer whose newest keys are in the cache, -1: none
  struct ggml_tensor *mask;  // whose columns are hidden now, NULL: none
  int32_t rows;              // of it
  ckvl_staged mask_data, keys;
  int32_t *cells;  // [count] hidden ones
  int32_t count;
  size_t cells_capacity;
  uint16_t *saved;  // [rows][count]
  size_t saved_capacity;
  ckv_status status;  // why cells could not be hidden: what was computed is of no use
  ckvl_error reason;
} ckvl_hiding;

void ckvl_hiding_free(ckvl_hiding *hiding);

// Around a decode call of a sequence with hidden cells, or of several sequences: `is_mixed`.
void ckvl_hiding_begin(ckvl_hiding *hiding, bool is_mixed);
ckv_status ckvl_hiding_end(ckvl_hiding *hiding, ckvl_error *error);

// Before a node is computed; returns whether it must be computed before the next one is asked about.
bool ckvl_hiding_before(ckvl_hiding *hiding, struct ggml_tensor *node);

// Whether the mask is as only this node's layer sees it.
bool ckvl_hiding_is_active(const ckvl_hiding *hiding);

// After such a node is computed.
void ckvl_hiding_after(ckvl_hiding *hiding);

#endif
