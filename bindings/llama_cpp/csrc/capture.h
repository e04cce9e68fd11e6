// Sees attention from inside the engine: the queries of a sequence's newest tokens, which cells
// they see, and where each layer's keys and values are. Works through the scheduler's eval callback
// (ggml_backend_sched_eval_callback) on nodes of GGML_OP_FLASH_ATTN_EXT.
#ifndef CKVL_CAPTURE_H
#define CKVL_CAPTURE_H

#include "error.h"
#include "llama_api.h"

#define CKVL_WINDOW 64    // rows kept: the largest observation window of chunkkv.h
#define CKVL_MAX_MASKS 2  // one cache has one mask; models with sliding windows have two caches
#define CKVL_MAX_LAYERS 1024

// One layer of the cache, as its attention node showed it.
typedef struct ckvl_layer {
  int32_t index;  // N of its tensor cache_k_l<N>
  int32_t num_q_heads;
  int32_t num_kv_heads;
  int32_t key_dim;    // of one head
  int32_t value_dim;  // of one head
  int32_t mask;       // which of the capture's masks it used last
  float scale;
  float logit_softcap;
  struct ggml_tensor *keys;    // [num_kv_heads * key_dim, cells, streams]
  struct ggml_tensor *values;  // [num_kv_heads * value_dim, cells, streams]
  int32_t streams;             // 1: all sequences share the cells; else each has a stream of them
  int32_t stream;              // the capture's own
  int32_t node_first, node_streams;  // streams that the node which was read last is about
  float *queries;                // [CKVL_WINDOW][num_q_heads][key_dim], `rows` of them, newest last
  ggml_backend_buffer_t pinned;  // that they are in; NULL: in ordinary memory
  int32_t rows;
  int32_t seen;    // tokens of the decode call, or the stream, whose attention is done
  llama_pos next;  // position after the newest row seen
} ckvl_layer;

// The tensors of a layer's cache, as they are written to; NULL: not seen.
typedef struct ckvl_cache {
  struct ggml_tensor *keys, *values;
} ckvl_cache;

typedef struct ckvl_caches {
  ckvl_cache *data;  // by layer
  int32_t count;
} ckvl_caches;

// A mask's last row: the cells that the newest token sees, by index, rising.
typedef struct ckvl_mask {
  const struct ggml_tensor *tensor;
  llama_pos next;  // position after the token whose row it is
  int32_t *cells;
  int32_t count, capacity;
} ckvl_mask;

// What is known of one sequence.
typedef struct ckvl_capture {
  const ckvl_api *api;
  // Who has host memory that GPUs read fast; NULL: queries are in ordinary memory wherever layers are.
  const ckvl_host_api *pins;
  ckvl_layer *layers;  // by rising index
  int32_t num_layers, capacity;
  ckvl_caches caches;
  ckvl_mask masks[CKVL_MAX_MASKS];
  // The model has no sliding windows: all masks are one, though each backend may have its own copy.
  bool has_one_mask;
  llama_seq_id seq;
  int32_t run_begin, run_end, batch_tokens;  // the sequence's tokens in the batch
  llama_pos from;                            // rows before this position are not wanted
  bool is_open;                              // see ckvl_run
  bool skipped;       // rows of a device were left out, so that none are there
  bool wants;         // whether the node that was asked about shows rows
  llama_pos next;     // position after the newest captured row; -1: nothing captured
  int32_t rows;       // rows of every layer
  bool has_cells;     // whether the masks are those of the newest captured row
  ckv_status status;  // of the last begin..end: why there is nothing, in `reason`
  ckvl_error reason;
} ckvl_capture;

// Where a cell's row is in a layer's keys or values.
size_t ckvl_row_offset(const ckvl_layer *layer, const struct ggml_tensor *rows, int32_t cell);

void ckvl_capture_init(ckvl_capture *capture, const ckvl_api *api);
void ckvl_capture_free(ckvl_capture *capture);

// Makes `to`, which is initialised, a copy of `from` without its cells, in ordinary memory. Both are
// of one context. On failure `to` is as it was.
ckv_status ckvl_capture_copy(ckvl_capture *to, const ckvl_capture *from, ckvl_error *error);

// Forgets rows and cells, not the layers.
void ckvl_capture_forget(ckvl_capture *capture);

// The sequence's tokens have got other cells: the queries are still theirs, the masks are void.
void ckvl_capture_forget_cells(ckvl_capture *capture);

// The sequence ends at position `next` now: rows from there on are forgotten, and the cells.
void ckvl_capture_rewind(ckvl_capture *capture, llama_pos next);

// A sequence's tokens in a batch: one run of them, in order, from position `first` on.
typedef struct ckvl_run {
  llama_seq_id seq;
  int32_t begin, end;    // batch tokens begin..end-1
  int32_t batch_tokens;  // of all sequences
  llama_pos first;
  // More is to come before rows are needed. On a device each read stops the engine, so that none is
  // made: the rows are those of the next runs alone then.
  bool is_open;
} ckvl_run;

// Around a decode call that has the run. Rows from position `from` on are captured, at most the
// newest CKVL_WINDOW; they join those of the call before if nothing lies between. The engine
// computes a batch's tokens in their order, or where each sequence has a stream of cells of its own
// the tokens of each sequence in theirs.
void ckvl_capture_begin(ckvl_capture *capture, const ckvl_run *run, llama_pos from);
void ckvl_capture_end(ckvl_capture *capture, llama_pos next, bool decoded);

// The eval callback between begin and end; user_data is the capture. Several captures may be served
// in one call: each is asked, and each is shown the node if one of them wants it.
bool ckvl_capture_node(struct ggml_tensor *node, bool ask, void *user_data);

#endif
