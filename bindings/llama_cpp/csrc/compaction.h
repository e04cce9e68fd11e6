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
#include "places.h"
#include "staged.h"
#include "state_blob.h"
#include "sums.h"

#define CKVL_MAX_PLACES (1 + CKVL_MAX_DEVICES)

// A sequence that has the cache for itself, one stream of cells.
typedef struct ckvl_alone {
  bool is_so;
  llama_seq_id spare;  // another one, which has no cells
  bool is_listed;      // the engine names it in a state's cells
} ckvl_alone;

typedef struct ckvl_compaction {
  const ckvl_api *api;
  struct llama_context *ctx;
  llama_seq_id seq;
  const ckvl_capture *capture;
  ckv_context *ckv;  // of the host's CPU
  ckvl_devices *devices;
  // The engine's host has states on a device of its own, which another one would make void.
  bool keeps_device_states;
  ckvl_error *error;
  const ckvl_sums *sums;  // what h2o chooses by; NULL: there are none
  bool has_hidden;        // some layer has cells that are hidden from it

  ckvl_cells cells;     // of the global cache
  ckvl_alone alone;     // the cache is the sequence's alone
  bool knows_device;    // the engine can leave rows on their device
  bool is_run;          // they lie side by side: rows are found without a list of them
  ckvl_layers global;   // the layers to compact
  ckvl_layers sliding;  // layers with a sliding window: their cache is carried over unchanged
  ckvl_place places[CKVL_MAX_PLACES];
  int32_t num_places;
  int32_t *place;  // [global.count] which of them the layer is in
  uint8_t *sliding_blob;
  size_t sliding_bytes;
  ckvl_kept kept;
  bool drops;    // some layer keeps fewer tokens than it has
  bool is_lost;  // commit failed half-way: the sequence is empty now
} ckvl_compaction;

// The caller has set api, ctx, seq, capture, ckv, devices and error; the rest is 0. The capture must end at
// the sequence's newest token. A shift of positions that is not yet applied must not be pending.
ckv_status ckvl_compaction_prepare(ckvl_compaction *c);

// params->budget tokens stay; scale and logit_softcap are the model's own, layer by layer.
ckv_status ckvl_compaction_select(ckvl_compaction *c, const ckv_params *params);

// Takes over *kept, with sets for every global layer.
ckv_status ckvl_compaction_use(ckvl_compaction *c, ckvl_kept *kept);

// On failure the sequence is as before, or is_lost is set.
ckv_status ckvl_compaction_commit(ckvl_compaction *c);

void ckvl_compaction_free(ckvl_compaction *c);

// ---- Between the files of a compaction ----------------------------------------------------------

// Keys or values of global layer `l` as the library wants them: a strided view, or one cell per block.
// Its place has begun.
ckv_kv_view ckvl_rows_view(const ckvl_compaction *c, int32_t l, const struct ggml_tensor *rows,
                           int32_t head_dim);

// Lets go of what the places hold.
void ckvl_places_end(ckvl_compaction *c);

// True if some layer is not in host memory.
bool ckvl_is_on_device(const ckvl_compaction *c);

// Selection where layers have or keep tokens of their own number, or have sums to choose by: on the
// CPU, wherever the layers are. Fills in c->kept, its lens too, and c->drops.
bool ckvl_selects_own(const ckvl_compaction *c, const ckv_params *params);
ckv_status ckvl_select_own(ckvl_compaction *c, const ckv_params *params, float *scores);

// A layer's attention queries, the newest `window` of those captured, at `data`.
ckv_query_view ckvl_queries_view(const ckvl_layer *layer, int32_t window, int32_t device,
                                 const char *data);

// Bytes of those queries, and where the capture has them.
size_t ckvl_queries_bytes(const ckvl_layer *layer, int32_t window);
const char *ckvl_queries_captured(const ckvl_layer *layer, int32_t window);

// What selecting for the layers on a device has there, of all layers.
typedef struct ckvl_device_selection {
  int32_t *indices, *lens;
  char *queries;  // of `most` layers, query_bytes each
  size_t query_bytes;
  int32_t most;  // layers that one call is made for
} ckvl_device_selection;

// Queues selecting for a place's layers on its device; fetch waits for it and brings the sets to c->kept.
ckv_status ckvl_device_select(ckvl_compaction *c, const ckv_params *params, int32_t place,
                              ckvl_device_selection *s);
ckv_status ckvl_device_fetch(ckvl_compaction *c, int32_t place, const ckvl_device_selection *s);

// Moves the kept rows of a layer whose sets are shorter than others', on the CPU, and hides its other
// cells.
ckv_status ckvl_gather_short(const ckvl_compaction *c, int32_t l);

// The tokens that a layer has of the sequence's: all, but for those in cells hidden from it.
typedef struct ckvl_own_tokens {
  int32_t count;
  int32_t *place;       // [count] which of the sequence's tokens, rising; NULL: all
  const int32_t *cell;  // [count]
} ckvl_own_tokens;

ckv_status ckvl_own_tokens_find(const ckvl_compaction *c, const ckvl_layer *layer,
                                ckvl_own_tokens *own);
void ckvl_own_tokens_free(ckvl_own_tokens *own);

// Moving rows. begin gets all memory that it needs, and changes nothing; gather moves the kept rows of
// every layer into the cells of the sequence's first positions.
ckv_status ckvl_rows_begin(ckvl_compaction *c);
ckv_status ckvl_rows_gather(ckvl_compaction *c);

// Putting the engine's cells right, after its rows have been moved and the dropped cells are free. begin
// gets all memory that it needs, and changes nothing; after a failed replace the sequence is lost.
typedef struct ckvl_state_swap {
  llama_state_seq_flags flags;  // whether rows go through the host or stay on their devices
  uint8_t *blob;
  size_t bytes;
  llama_pos *positions;  // [kept.len] of the kept tokens
  bool clears;           // the cache is cleared, rather than freed cell by cell
} ckvl_state_swap;

ckv_status ckvl_state_swap_begin(const ckvl_compaction *c, ckvl_state_swap *swap);
ckv_status ckvl_state_swap_replace(const ckvl_compaction *c, ckvl_state_swap *swap);
void ckvl_state_swap_end(ckvl_state_swap *swap);

// Whether the engine takes the state in the swap's blob back.
bool ckvl_state_swap_set(const ckvl_compaction *c, const ckvl_state_swap *swap, size_t size);

// Where the sequence has the cache for itself: finds out, checks the size of the engine's state, replaces
// it as ckvl_state_swap_replace does (no cell has been freed before).
void ckvl_alone_find(ckvl_compaction *c);
ckv_status ckvl_alone_check_size(ckvl_compaction *c);
ckv_status ckvl_alone_replace(const ckvl_compaction *c, ckvl_state_swap *swap);

#endif
