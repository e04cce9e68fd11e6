// Where a sequence's tokens are in the engine's unified cache: cell and position of each.
#ifndef CKVL_CELLS_H
#define CKVL_CELLS_H

#include "error.h"
#include "llama_api.h"

typedef struct ckvl_cells {
  int32_t count;
  int32_t *cell;          // [count] cell of each token, tokens by rising position
  llama_pos *pos;         // [count]
  bool is_shared;         // some cell belongs to another sequence as well
  size_t metadata_bytes;  // of the state that was read, as the engine tells it without rows
} ckvl_cells;

// Reads the positions of a sequence's cells; *cells is to be freed. `index` has the sequence's cells
// by index, rising, `count` of them; NULL: only `count`, `pos` and `is_shared` are filled in. The
// cache must have `streams` streams of cells; 0: however many.
// The engine is asked for its metadata alone, no keys or values are copied.
ckv_status ckvl_cells_read(const ckvl_api *api, struct llama_context *ctx, llama_seq_id seq,
                           int32_t streams, const int32_t *index, int32_t count, ckvl_cells *cells,
                           ckvl_error *error);

// The same of a sequence that has the cache for itself, one stream of cells: one walk of the engine over
// them tells all.
ckv_status ckvl_cells_read_alone(const ckvl_api *api, struct llama_context *ctx, llama_seq_id seq,
                                 const int32_t *index, int32_t count, ckvl_cells *cells,
                                 ckvl_error *error);

void ckvl_cells_free(ckvl_cells *cells);

#endif
