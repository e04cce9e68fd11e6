#include "cells.h"

#include <stdlib.h>

#include "state_blob.h"

#define ANY_SEQUENCE (-1)

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

// Reads the cells of all sequences; those of `seq` go to `tokens`, of which there are `capacity`.
static ckv_status read_metadata(ckvl_reader *reader, llama_seq_id seq, uint32_t num_sequences,
                                token *tokens, int32_t capacity, ckvl_cells *cells,
                                ckvl_error *error) {
  const uint32_t magic = ckvl_read_u32(reader);
  const int32_t whose = (int32_t)ckvl_read_u32(reader);
  const uint32_t streams = ckvl_read_u32(reader);
  const uint32_t total = ckvl_read_u32(reader);
  if (reader->failed || magic != CKVL_BLOB_MAGIC || whose != ANY_SEQUENCE || streams != 1) {
    return ckvl_fail(error, CKV_ERROR_UNSUPPORTED,
                     "Expected the state of a unified KV cache but found magic %08x, sequence %d, "
                     "%u streams",
                     magic, whose, streams);
  }
  for (uint32_t i = 0; i < total; i++) {
    const llama_pos pos = (llama_pos)ckvl_read_u32(reader);
    const uint32_t owners = ckvl_read_u32(reader);
    bool mine = false;
    for (uint32_t o = 0; o < owners && !reader->failed; o++) {
      const uint32_t owner = ckvl_read_u32(reader);
      if (owner >= num_sequences) reader->failed = true;
      mine = mine || owner == (uint32_t)seq;
    }
    if (reader->failed || owners < 1 || owners > num_sequences || pos < 0) {
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

ckv_status ckvl_cells_read(const ckvl_api *api, struct llama_context *ctx, llama_seq_id seq,
                           const int32_t *index, int32_t count, ckvl_cells *cells,
                           ckvl_error *error) {
  *cells = (ckvl_cells){0};
  // The size without rows. A buffer of that size holds all metadata that comes before the first
  // row; the engine then stops for want of room, having copied (almost) no row.
  const size_t bytes =
      api->llama_state_seq_get_size_ext(ctx, ANY_SEQUENCE, LLAMA_STATE_SEQ_FLAGS_ON_DEVICE);
  // Each cell takes at least 12 of those bytes.
  const size_t most = bytes / 12 + 1;
  uint8_t *data = calloc(1, bytes > 0 ? bytes : 1);
  token *tokens = malloc(sizeof *tokens * most);
  ckv_status status;
  if (!data || !tokens) {
    status = ckvl_fail_memory(error, bytes + sizeof *tokens * most);
  } else {
    api->llama_state_seq_get_data_ext(ctx, data, bytes, ANY_SEQUENCE, LLAMA_STATE_SEQ_FLAGS_NONE);
    ckvl_reader reader = {.data = data, .size = bytes};
    status =
        read_metadata(&reader, seq, api->llama_n_seq_max(ctx), tokens, (int32_t)most, cells, error);
  }
  if (!status && index && cells->count != count) {
    status = ckvl_fail(error, CKV_ERROR_UNSUPPORTED,
                       "Expected the newest token to see all %d cells of its sequence but it sees "
                       "%d",
                       cells->count, count);
  }
  if (!status) status = sort_tokens(tokens, index, cells, error);
  free(tokens);
  free(data);
  if (status) ckvl_cells_free(cells);
  return status;
}
