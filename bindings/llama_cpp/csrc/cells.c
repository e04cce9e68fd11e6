#include "cells.h"

#include <stdlib.h>

#include "state_blob.h"

#define ANY_SEQUENCE (-1)
#define CELL_BYTES 12  // at least: position, number of sequences, sequence

void ckvl_cells_free(ckvl_cells *cells) {
  free(cells->cell);
  free(cells->pos);
  *cells = (ckvl_cells){0};
}

typedef struct {
  llama_pos pos;
  int32_t cell;
} token;

static int by_position(const void *a, const void *b) {
  const llama_pos x = ((const token *)a)->pos, y = ((const token *)b)->pos;
  return (x > y) - (x < y);
}

// What is read of a state: whose, from how many streams, and whose cells are wanted.
typedef struct {
  llama_seq_id whose, wanted;
  int32_t streams;  // 0: however many
  uint32_t num_sequences;
} request;

static ckv_status fail_count(ckvl_error *error, int32_t found, int32_t seen) {
  return ckvl_fail(error, CKV_ERROR_UNSUPPORTED,
                   "Expected the newest token to see all %d cells of its sequence but it sees %d",
                   found, seen);
}

// Reads the first stream that has cells; those of the wanted sequence go to `tokens`, of which there
// are `capacity`.
static ckv_status read_metadata(ckvl_reader *reader, const request *r, token *tokens,
                                int32_t capacity, ckvl_cells *cells, ckvl_error *error) {
  const uint32_t magic = ckvl_read_u32(reader);
  const int32_t whose = (int32_t)ckvl_read_u32(reader);
  const uint32_t streams = ckvl_read_u32(reader);
  const bool is_known = r->streams == 0 ? streams >= 1 && streams <= r->num_sequences
                                        : streams == (uint32_t)r->streams;
  if (reader->failed || magic != CKVL_BLOB_MAGIC || whose != r->whose || !is_known) {
    return ckvl_fail(error, CKV_ERROR_UNSUPPORTED,
                     "Expected the state of a KV cache with %d streams but found magic %08x, "
                     "sequence %d, %u streams",
                     r->streams, magic, whose, streams);
  }
  uint32_t total = ckvl_read_u32(reader);
  for (uint32_t s = 1; s < streams && total == 0; s++) total = ckvl_read_u32(reader);
  for (uint32_t i = 0; i < total; i++) {
    const llama_pos pos = (llama_pos)ckvl_read_u32(reader);
    const uint32_t owners = ckvl_read_u32(reader);
    bool mine = false;
    for (uint32_t o = 0; o < owners && !reader->failed; o++) {
      const uint32_t owner = ckvl_read_u32(reader);
      if (owner >= r->num_sequences) reader->failed = true;
      mine = mine || owner == (uint32_t)r->wanted;
    }
    if (reader->failed || owners < 1 || owners > r->num_sequences || pos < 0) {
      return ckvl_fail(error, CKV_ERROR_UNSUPPORTED,
                       "Expected cells with a position and sequences in the engine's state but "
                       "found something else at cell %u of %u",
                       i, total);
    }
    if (!mine) continue;
    cells->is_shared = cells->is_shared || owners > 1;
    if (cells->count < capacity) tokens[cells->count].pos = pos;
    cells->count++;
  }
  return CKV_OK;
}

static ckv_status sort_tokens(token *tokens, const int32_t *index, ckvl_cells *cells,
                              ckvl_error *error) {
  const int32_t n = cells->count;
  const size_t bytes = sizeof(int32_t) * (size_t)(n > 0 ? n : 1);
  cells->cell = malloc(bytes);
  cells->pos = malloc(bytes);
  if (!cells->cell || !cells->pos) return ckvl_fail_memory(error, 2 * bytes);
  bool sorted = true;
  for (int32_t i = 0; i < n; i++) {
    tokens[i].cell = index ? index[i] : -1;
    sorted = sorted && (i == 0 || tokens[i - 1].pos < tokens[i].pos);
  }
  if (!sorted) qsort(tokens, (size_t)n, sizeof *tokens, by_position);
  for (int32_t i = 0; i < n; i++) {
    if (i > 0 && tokens[i].pos <= tokens[i - 1].pos) {
      return ckvl_fail(error, CKV_ERROR_UNSUPPORTED,
                       "Expected one token per position but found two at position %d",
                       tokens[i].pos);
    }
    cells->cell[i] = tokens[i].cell;
    cells->pos[i] = tokens[i].pos;
  }
  return CKV_OK;
}

// The state's metadata: all that comes before the first row, in a buffer of the size without rows.
// The engine stops for want of room, having copied (almost) no row.
static uint8_t *get_metadata(const ckvl_api *api, struct llama_context *ctx, llama_seq_id whose,
                             size_t *bytes, ckvl_error *error) {
  *bytes = api->llama_state_seq_get_size_ext(ctx, whose, LLAMA_STATE_SEQ_FLAGS_ON_DEVICE);
  uint8_t *data = calloc(1, *bytes > 0 ? *bytes : 1);
  if (!data) {
    ckvl_fail_memory(error, *bytes);
    return NULL;
  }
  api->llama_state_seq_get_data_ext(ctx, data, *bytes, whose, LLAMA_STATE_SEQ_FLAGS_NONE);
  return data;
}

// From metadata to cells in the order of their positions. `most`: cells that there can be.
static ckv_status read_cells(const uint8_t *data, size_t bytes, const request *r, int32_t most,
                             const int32_t *index, int32_t count, ckvl_cells *cells,
                             ckvl_error *error) {
  token *tokens = malloc(sizeof *tokens * (size_t)most);
  ckv_status status;
  if (!tokens) {
    status = ckvl_fail_memory(error, sizeof *tokens * (size_t)most);
  } else {
    ckvl_reader reader = {.data = data, .size = bytes};
    status = read_metadata(&reader, r, tokens, most, cells, error);
  }
  if (!status && index && cells->count != count) status = fail_count(error, cells->count, count);
  if (!status) status = sort_tokens(tokens, index, cells, error);
  free(tokens);
  if (status) ckvl_cells_free(cells);
  return status;
}

ckv_status ckvl_cells_read_alone(const ckvl_api *api, struct llama_context *ctx, llama_seq_id seq,
                                 const int32_t *index, int32_t count, ckvl_cells *cells,
                                 ckvl_error *error) {
  *cells = (ckvl_cells){0};
  // The engine stops for want of room after the last cell, before any row.
  const size_t streams = CKVL_BLOB_HEADER_BYTES, list = streams + 8;
  const size_t bytes = list + CELL_BYTES * (size_t)count;
  uint8_t *data = calloc(1, bytes);
  if (!data) return ckvl_fail_memory(error, bytes);
  api->llama_state_seq_get_data_ext(ctx, data, bytes, seq, LLAMA_STATE_SEQ_FLAGS_NONE);
  ckvl_reader reader = {.data = data, .size = list};
  ckvl_skip(&reader, streams);
  const uint32_t of_one = ckvl_read_u32(&reader), found = ckvl_read_u32(&reader);
  const request r = {seq, seq, 1, api->llama_n_seq_max(ctx)};
  const ckv_status status =
      of_one == 1 && found != (uint32_t)count
          ? fail_count(error, (int32_t)found, count)
          : read_cells(data, bytes, &r, count + 1, index, count, cells, error);
  free(data);
  return status;
}

static uint32_t count_streams(const uint8_t *data, size_t bytes) {
  ckvl_reader reader = {.data = data, .size = bytes};
  ckvl_skip(&reader, CKVL_BLOB_HEADER_BYTES);
  return ckvl_read_u32(&reader);
}

ckv_status ckvl_cells_read(const ckvl_api *api, struct llama_context *ctx, llama_seq_id seq,
                           int32_t streams, const int32_t *index, int32_t count, ckvl_cells *cells,
                           ckvl_error *error) {
  *cells = (ckvl_cells){0};
  // Sequences with a stream each share no cells; others may, which only the state of all tells.
  request r = {ANY_SEQUENCE, seq, streams, api->llama_n_seq_max(ctx)};
  size_t bytes;
  uint8_t *data = get_metadata(api, ctx, r.whose, &bytes, error);
  if (data && streams != 1 && count_streams(data, bytes) > 1) {
    free(data);
    r.whose = seq;
    data = get_metadata(api, ctx, r.whose, &bytes, error);
  }
  if (!data) return CKV_ERROR_OUT_OF_MEMORY;
  cells->metadata_bytes = bytes;
  const ckv_status status =
      read_cells(data, bytes, &r, (int32_t)(bytes / CELL_BYTES + 1), index, count, cells, error);
  free(data);
  return status;
}
