// An engine with two layers and a few cells, that can be told to fail: what the real one never does
// on demand.
#ifndef FAKE_ENGINE_H
#define FAKE_ENGINE_H

#include "capture.h"

#define FAKE_LAYERS 2
#define FAKE_CELLS 64
#define FAKE_SEQUENCES 3  // numbers that there are
#define FAKE_HEADS 2
#define FAKE_KEY_DIM 4
#define FAKE_VALUE_DIM 3
#define FAKE_MAX_VALUE_DIM 1100

typedef struct fake_engine {
  ckvl_api api;
  ckvl_host_api host;  // its host memory alone
  struct ggml_tensor keys[FAKE_LAYERS], values[FAKE_LAYERS];
  float key_data[FAKE_LAYERS][FAKE_CELLS * FAKE_HEADS * FAKE_KEY_DIM];
  float value_data[FAKE_LAYERS][FAKE_CELLS * FAKE_HEADS * FAKE_MAX_VALUE_DIM];
  int32_t position[FAKE_CELLS];  // -1: the cell is free
  uint32_t owners[FAKE_CELLS];   // a bit per sequence
  uint32_t sequences;            // that states name; others may have cells all the same
  // The rows of the state that was saved on the device last: its sequence, its cells.
  llama_seq_id saved_seq;
  int32_t saved_cells;
  float saved_keys[FAKE_LAYERS][FAKE_CELLS * FAKE_HEADS * FAKE_KEY_DIM];
  float saved_values[FAKE_LAYERS][FAKE_CELLS * FAKE_HEADS * FAKE_VALUE_DIM];
  // Faults.
  bool on_device;
  size_t device_bytes;                        // that are free there
  bool has_no_host_type, has_no_host_memory;  // which the device reads fast
  int32_t pinned;                             // buffers of it that live
  bool remove_refuses;
  int32_t saves_to_fail;  // whole states of one sequence, after those to let pass
  int32_t saves_to_pass;
  int32_t restores_to_fail;
  uint32_t streams;
  int32_t clears;      // calls that cleared the cache
  size_t extra_bytes;  // a part of the state that nobody expects
} fake_engine;

// Rows are distinct: layer, cell, head and side can be told from any element.
void fake_engine_init(fake_engine *engine);

// Gives `count` tokens from position `first` to a sequence, in the free cells from `cell` on.
void fake_engine_add(fake_engine *engine, int32_t sequence, int32_t first, int32_t count,
                     int32_t cell);

struct llama_context *fake_context(fake_engine *engine);

// Cells that the sequence has, by index; returns their number.
int32_t fake_engine_cells(const fake_engine *engine, int32_t sequence, int32_t *cells);

#endif
