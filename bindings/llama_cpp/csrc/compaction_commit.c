#include <stdlib.h>
#include <string.h>

#include "compaction.h"

// All memory that the commit needs, got before anything changes.
typedef struct {
  uint8_t *blob;  // first the rows that gathering overwrites, then the state
  size_t bytes;
  llama_pos *positions;  // [kept.len] of the kept tokens
} buffers;

typedef void (*row_copy)(const ckvl_compaction *c, struct ggml_tensor *rows, size_t offset,
                         uint8_t *saved);

static void save_row(const ckvl_compaction *c, struct ggml_tensor *rows, size_t offset,
                     uint8_t *saved) {
  c->api->ggml_backend_tensor_get(rows, saved, offset, rows->nb[1]);
}

static void restore_row(const ckvl_compaction *c, struct ggml_tensor *rows, size_t offset,
                        uint8_t *saved) {
  c->api->ggml_backend_tensor_set(rows, saved, offset, rows->nb[1]);
}

// Walks the rows that gathering writes to.
static void for_written_rows(const ckvl_compaction *c, uint8_t *saved, row_copy copy) {
  for (int32_t l = 0; l < c->global.count; l++) {
    const ckvl_layer *layer = c->global.data[l];
    struct ggml_tensor *const tensors[] = {layer->keys, layer->values};
    for (int32_t side = 0; side < 2; side++) {
      for (int32_t i = 0; i < c->kept.len; i++) {
        copy(c, tensors[side], ckvl_row_offset(layer, tensors[side], c->cells.cell[i]), saved);
        saved += tensors[side]->nb[1];
      }
    }
  }
}

// Moves the kept rows of every layer into the cells of the sequence's first positions.
static ckv_status gather_rows(ckvl_compaction *c) {
  for (int32_t l = 0; l < c->global.count; l++) {
    const ckvl_layer *layer = c->global.data[l];
    const ckv_kept kept = {
        .struct_size = sizeof kept,
        .batch = 1,
        .num_heads = c->kept.heads[l],
        .capacity = c->kept.capacity,
        .indices = ckvl_kept_indices(&c->kept, l),
        .lens = &c->kept.len,
    };
    const ckv_kv_view keys = ckvl_rows_view(c, layer, layer->keys, layer->key_dim);
    const ckv_kv_view values = ckvl_rows_view(c, layer, layer->values, layer->value_dim);
    ckv_status status = ckv_compact(c->ckv, &keys, NULL, &kept);
    if (!status) status = ckv_compact(c->ckv, &values, NULL, &kept);
    if (status) {
      return ckvl_fail(c->error, status, "Layer %d: %s", layer->index, ckv_context_error(c->ckv));
    }
  }
  return CKV_OK;
}

// Cells that the sliding-window part of a state can have.
static int32_t max_sliding_cells(const ckvl_compaction *c) {
  return c->sliding.count ? (int32_t)c->sliding.data[0]->keys->ne[1] : 0;
}

static ckv_status get_buffers(const ckvl_compaction *c, buffers *b) {
  const size_t sliding = ckvl_blob_cache_bytes(&c->sliding, max_sliding_cells(c));
  b->bytes = CKVL_BLOB_HEADER_BYTES + ckvl_blob_cache_bytes(&c->global, c->kept.len) + sliding;
  b->blob = malloc(b->bytes);
  b->positions = malloc(sizeof *b->positions * (size_t)c->kept.len);
  if (!b->blob || !b->positions) return ckvl_fail_memory(c->error, b->bytes);
  for (int32_t i = 0; i < c->kept.len; i++) {
    b->positions[i] = c->cells.pos[ckvl_kept_oldest(&c->kept, i)];
  }
  return CKV_OK;
}

// Reads the state of the kept cells, gives them the kept tokens' positions, and appends the
// sliding-window part as it was before.
static ckv_status build_state(const ckvl_compaction *c, const buffers *b, size_t *size) {
  const size_t global = ckvl_blob_cache_bytes(&c->global, c->kept.len);
  const llama_state_seq_flags flags = LLAMA_STATE_SEQ_FLAGS_NONE;
  const size_t expected = c->api->llama_state_seq_get_size_ext(c->ctx, c->seq, flags);
  const size_t read = expected <= b->bytes ? c->api->llama_state_seq_get_data_ext(
                                                 c->ctx, b->blob, b->bytes, c->seq, flags)
                                           : 0;
  if (read == 0 || read != expected || read < CKVL_BLOB_HEADER_BYTES + global) {
    return ckvl_fail(c->error, CKV_ERROR_ENGINE,
                     "Expected the engine to save %zu bytes of state but found %zu", expected,
                     read);
  }
  const ckv_status status =
      ckvl_blob_replace_positions(b->blob + CKVL_BLOB_HEADER_BYTES, global, c->seq, &c->global,
                                  c->kept.len, c->cells.pos, b->positions, c->error);
  if (status) return status;
  *size = CKVL_BLOB_HEADER_BYTES + global;
  if (c->sliding_bytes) {
    const size_t rest = c->sliding_bytes - CKVL_BLOB_HEADER_BYTES;
    memcpy(b->blob + *size, c->sliding_blob + CKVL_BLOB_HEADER_BYTES, rest);
    *size += rest;
  }
  return CKV_OK;
}

// From here on the engine has let go of cells: what fails now leaves the sequence empty.
static ckv_status replace_state(const ckvl_compaction *c, const buffers *b) {
  const llama_memory_t memory = c->api->llama_get_memory(c->ctx);
  const llama_pos newest = c->cells.pos[c->cells.count - 1];
  size_t size = 0;
  const ckv_status status = build_state(c, b, &size);
  if (status) return status;
  c->api->llama_memory_seq_rm(memory, c->seq, -1, -1);
  size_t written = 0;
  for (int32_t attempt = 0; attempt < 2 && written != size; attempt++) {
    written = c->api->llama_state_seq_set_data_ext(c->ctx, b->blob, size, c->seq,
                                                   LLAMA_STATE_SEQ_FLAGS_NONE);
  }
  if (written == size && c->api->llama_memory_seq_pos_max(memory, c->seq) == newest) return CKV_OK;
  return ckvl_fail(c->error, CKV_ERROR_ENGINE,
                   "Expected the engine to restore %zu bytes of state but found %zu", size,
                   written);
}

ckv_status ckvl_compaction_commit(ckvl_compaction *c) {
  const llama_memory_t memory = c->api->llama_get_memory(c->ctx);
  buffers b = {0};
  ckv_status status = get_buffers(c, &b);
  if (!status) {
    for_written_rows(c, b.blob, save_row);
    status = gather_rows(c);
    if (!status && c->kept.len < c->cells.count &&
        !c->api->llama_memory_seq_rm(memory, c->seq, c->cells.pos[c->kept.len], -1)) {
      status = ckvl_fail(c->error, CKV_ERROR_ENGINE,
                         "Expected the engine to free the cells from position %d on but it refused",
                         c->cells.pos[c->kept.len]);
    }
    if (status) {
      for_written_rows(c, b.blob, restore_row);
    } else {
      status = replace_state(c, &b);
      if (status) {
        c->api->llama_memory_seq_rm(memory, c->seq, -1, -1);
        c->is_lost = true;
      }
    }
  }
  free(b.blob);
  free(b.positions);
  return status;
}
