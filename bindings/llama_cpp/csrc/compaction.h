// Compaction of one sequence inside the engine's own memory: every layer keeps its own tokens.
//
//   prepare   check everything that can be checked, read cells and positions
//   select    score and select by a method         }  one of the two
//   use       take given indices                   }
//   commit    rows moved, cells freed, positions restored
//
// Until commit nothing of the engine has changed.
#ifndef CKVL_COMPACTION_H
#define CKVL_COMPACTION_H

#include "cells.h"
#include "kept.h"
#include "state_blob.h"

typedef struct ckvl_compaction {
  const ckvl_api *api;
  struct llama_context *ctx;
  llama_seq_id seq;
  const ckvl_capture *capture;
  ckv_context *ckv;
  ckvl_error *error;

  ckvl_cells cells;     // of the global cache
  ckvl_layers global;   // the layers to compact
  ckvl_layers sliding;  // layers with a sliding window: their cache is carried over unchanged
  uint8_t *sliding_blob;
  size_t sliding_bytes;
  ckvl_kept kept;
  bool is_lost;  // commit failed half-way: the sequence is empty now
} ckvl_compaction;

// The caller has set api, ctx, seq, capture, ckv and error; the rest is 0. The capture must end at
// the sequence's newest token. A shift of positions that is not yet applied must not be pending.
ckv_status ckvl_compaction_prepare(ckvl_compaction *c);

// params->budget tokens stay; scale and logit_softcap are the model's own, layer by layer.
ckv_status ckvl_compaction_select(ckvl_compaction *c, const ckv_params *params);

// Takes over *kept, with sets for every global layer.
ckv_status ckvl_compaction_use(ckvl_compaction *c, ckvl_kept *kept);

// On failure the sequence is as before, or is_lost is set.
ckv_status ckvl_compaction_commit(ckvl_compaction *c);

void ckvl_compaction_free(ckvl_compaction *c);

// Keys or values of a layer as the library wants them: one cell per block.
ckv_kv_view ckvl_rows_view(const ckvl_compaction *c, const ckvl_layer *layer,
                           struct ggml_tensor *rows, int32_t head_dim);

#endif
