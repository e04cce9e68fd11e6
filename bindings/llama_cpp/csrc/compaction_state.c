// The engine's cells after a compaction: its state of the sequence goes out, gets the kept tokens'
// positions, and goes in again. On a GPU the rows stay there meanwhile.
#include <stdlib.h>
#include <string.h>

#include "attention_node.h"
#include "compaction.h"

#define SPARE_BYTES ((size_t)64 << 20)  // that a device must have beyond what is needed

// Cells that the sliding-window part of a state can have.
static int32_t max_sliding_cells(const ckvl_compaction *c) {
  return c->sliding.count ? (int32_t)c->sliding.data[0]->keys->ne[1] : 0;
}

// Rows of the kept tokens in one place.
static size_t kept_bytes(const ckvl_compaction *c, int32_t place) {
  size_t bytes = 0;
  for (int32_t l = 0; l < c->global.count; l++) {
    const ckvl_layer *layer = c->global.data[l];
    if (c->place[l] == place) bytes += layer->keys->nb[1] + layer->values->nb[1];
  }
  return bytes * (size_t)c->kept.len;
}

// Saving a state on devices takes their memory for its rows, and the engine does not survive it if they
// have none left.
static bool has_room(const ckvl_compaction *c) {
  // Cells of sliding windows go along, as many as are left then.
  const size_t sliding = ckvl_blob_row_bytes(&c->sliding) * (size_t)max_sliding_cells(c);
  for (int32_t p = 0; p < c->num_places; p++) {
    int32_t l = 0;
    while (c->place[l] != p) l++;
    ggml_backend_buffer_t buffer = c->global.data[l]->keys->buffer;
    // Host memory is not what runs out, and the engine names no device for it.
    if (c->api->ggml_backend_buffer_is_host(buffer)) continue;
    ggml_backend_buffer_type_t type = c->api->ggml_backend_buffer_get_type(buffer);
    ggml_backend_dev_t device = c->api->ggml_backend_buft_get_device(type);
    size_t free_bytes = 0, total = 0;
    if (device) c->api->ggml_backend_dev_memory(device, &free_bytes, &total);
    const size_t needed = kept_bytes(c, p) + sliding;
    if (free_bytes < needed + needed / 16 + SPARE_BYTES) return false;
  }
  return true;
}

static size_t part_bytes(const ckvl_layers *layers, int32_t cells, llama_state_seq_flags flags) {
  return flags & LLAMA_STATE_SEQ_FLAGS_ON_DEVICE ? ckvl_blob_cache_metadata_bytes(layers, cells)
                                                 : ckvl_blob_cache_bytes(layers, cells);
}

static bool is_in_blocks(const struct ggml_tensor *rows) {
  const int32_t dtype = ckvl_dtype(rows->type);
  return dtype == CKV_Q8_0 || dtype == CKV_Q4_0;
}

// Of rows in blocks the engine saves on a device but a part, counting blocks as elements. They are right
// all the same where they come back into the cells that they are in: the first ones of a cleared cache.
static bool rows_survive(const ckvl_compaction *c) {
  bool in_blocks = false;
  for (int32_t l = 0; l < c->global.count; l++) {
    const ckvl_layer *layer = c->global.data[l];
    in_blocks = in_blocks || is_in_blocks(layer->keys) || is_in_blocks(layer->values);
  }
  int32_t i = 0;
  while (in_blocks && c->alone.is_so && i < c->kept.len && c->cells.cell[i] == i) i++;
  return !in_blocks || i == c->kept.len;
}

// Rows stay where they are if some are on a GPU, and the engine can do that.
static llama_state_seq_flags choose_flags(const ckvl_compaction *c) {
  return ckvl_is_on_device(c) && !c->keeps_device_states && c->knows_device && rows_survive(c) &&
                 has_room(c)
             ? LLAMA_STATE_SEQ_FLAGS_ON_DEVICE
             : LLAMA_STATE_SEQ_FLAGS_NONE;
}

ckv_status ckvl_state_swap_begin(const ckvl_compaction *c, ckvl_state_swap *swap) {
  swap->flags = choose_flags(c);
  swap->clears = c->alone.is_so && swap->flags & LLAMA_STATE_SEQ_FLAGS_ON_DEVICE;
  swap->bytes = CKVL_BLOB_HEADER_BYTES + part_bytes(&c->global, c->kept.len, swap->flags) +
                part_bytes(&c->sliding, max_sliding_cells(c), swap->flags);
  swap->blob = malloc(swap->bytes);
  swap->positions = malloc(sizeof *swap->positions * (size_t)c->kept.len);
  if (!swap->blob || !swap->positions) return ckvl_fail_memory(c->error, swap->bytes);
  const int32_t tail = ckvl_kept_tail(&c->kept, c->cells.count);
  for (int32_t i = 0; i < c->kept.len; i++) {
    swap->positions[i] = c->cells.pos[ckvl_kept_oldest(&c->kept, i, tail)];
  }
  return CKV_OK;
}

void ckvl_state_swap_end(ckvl_state_swap *swap) {
  free(swap->blob);
  free(swap->positions);
  *swap = (ckvl_state_swap){0};
}

// Reads the state of the kept cells and gives them the kept tokens' positions.
static ckv_status build_state(const ckvl_compaction *c, const ckvl_state_swap *swap, size_t *size) {
  const size_t global = part_bytes(&c->global, c->kept.len, swap->flags);
  const size_t expected = c->api->llama_state_seq_get_size_ext(c->ctx, c->seq, swap->flags);
  const size_t read = expected <= swap->bytes
                          ? c->api->llama_state_seq_get_data_ext(c->ctx, swap->blob, swap->bytes,
                                                                 c->seq, swap->flags)
                          : 0;
  if (read == 0 || read != expected || read < CKVL_BLOB_HEADER_BYTES + global) {
    return ckvl_fail(c->error, CKV_ERROR_ENGINE,
                     "Expected the engine to save %zu bytes of state but found %zu", expected,
                     read);
  }
  *size = read;
  return ckvl_blob_replace_positions(
      swap->blob + CKVL_BLOB_HEADER_BYTES, global, c->seq, &c->global, c->kept.len,
      !(swap->flags & LLAMA_STATE_SEQ_FLAGS_ON_DEVICE), c->cells.pos, swap->positions, c->error);
}

// Freeing the dropped cells took cells of the sliding windows along: they come back as they were.
static void append_sliding(const ckvl_compaction *c, const ckvl_state_swap *swap, size_t *size) {
  const size_t rest = c->sliding_bytes - CKVL_BLOB_HEADER_BYTES;
  *size = CKVL_BLOB_HEADER_BYTES + part_bytes(&c->global, c->kept.len, swap->flags);
  memcpy(swap->blob + *size, c->sliding_blob + CKVL_BLOB_HEADER_BYTES, rest);
  *size += rest;
}

// Whether the engine takes the state back, on a device the part of the sliding windows after the rest.
// A call that fails has let go of the whole sequence, so both parts go in again.
bool ckvl_state_swap_set(const ckvl_compaction *c, const ckvl_state_swap *swap, size_t size) {
  const bool in_parts = c->sliding_bytes && swap->flags & LLAMA_STATE_SEQ_FLAGS_ON_DEVICE;
  for (int32_t attempt = 0; attempt < 2; attempt++) {
    if (c->api->llama_state_seq_set_data_ext(c->ctx, swap->blob, size, c->seq, swap->flags) !=
        size) {
      continue;
    }
    if (!in_parts || c->api->llama_state_seq_set_data_ext(
                         c->ctx, c->sliding_blob, c->sliding_bytes, c->seq,
                         LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY) == c->sliding_bytes) {
      return true;
    }
  }
  return false;
}

// The engine keeps device memory for a state that was saved there until the next one: that one is of
// few layers, for want of room in the blob, after the first layer of each place.
static void shrink_device_state(const ckvl_compaction *c, const ckvl_state_swap *swap) {
  int32_t layers = 0;
  for (int32_t p = 0; p < c->num_places; p++) {
    int32_t l = 0;
    while (c->place[l] != p) l++;
    if (layers < l + 1) layers = l + 1;
  }
  const size_t bytes =
      CKVL_BLOB_HEADER_BYTES + ckvl_blob_bytes_to_layer(&c->global, c->kept.len, layers);
  c->api->llama_state_seq_get_data_ext(c->ctx, swap->blob, bytes, c->seq, swap->flags);
}

ckv_status ckvl_state_swap_replace(const ckvl_compaction *c, ckvl_state_swap *swap) {
  if (swap->clears) return ckvl_alone_replace(c, swap);
  const llama_memory_t memory = c->api->llama_get_memory(c->ctx);
  const llama_pos newest = c->cells.pos[c->cells.count - 1];
  const bool on_device = swap->flags & LLAMA_STATE_SEQ_FLAGS_ON_DEVICE;
  size_t size = 0;
  const ckv_status status = build_state(c, swap, &size);
  if (status) return status;
  if (c->sliding_bytes && !on_device) append_sliding(c, swap, &size);
  c->api->llama_memory_seq_rm(memory, c->seq, -1, -1);
  if (!ckvl_state_swap_set(c, swap, size) ||
      c->api->llama_memory_seq_pos_max(memory, c->seq) != newest) {
    return ckvl_fail(c->error, CKV_ERROR_ENGINE,
                     "Expected the engine to restore %zu bytes of state but it did not", size);
  }
  if (on_device) shrink_device_state(c, swap);
  return CKV_OK;
}
