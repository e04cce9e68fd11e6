#include <stdlib.h>
#include <string.h>

#include "compaction.h"

ckv_status ckvl_compaction_use(ckvl_compaction *c, ckvl_kept *kept) {
  if (c->has_hidden) {
    return ckvl_fail(c->error, CKV_ERROR_UNSUPPORTED,
                     "Expected layers with the same tokens, for indices that count them, but found "
                     "different ones after pyramidkv");
  }
  if (kept->num_layers != c->global.count) {
    return ckvl_fail(c->error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected indices for the %d global layers but found them for %d",
                     c->global.count, kept->num_layers);
  }
  for (int32_t l = 0; l < c->global.count; l++) {
    const ckvl_layer *layer = c->global.data[l];
    kept->layer[l] = layer->index;
    if (kept->heads[l] != 1 && kept->heads[l] != layer->num_kv_heads) {
      return ckvl_fail(c->error, CKV_ERROR_INVALID_ARGUMENT,
                       "Expected 1 or %d index sets for layer %d but found %d", layer->num_kv_heads,
                       layer->index, kept->heads[l]);
    }
  }
  const ckv_status status = ckvl_kept_check(kept, c->cells.count, c->error);
  if (status) return status;
  ckvl_kept_free(&c->kept);
  c->kept = *kept;
  c->drops = kept->len < c->cells.count;
  *kept = (ckvl_kept){0};
  return CKV_OK;
}

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

static ckv_status free_dropped(const ckvl_compaction *c) {
  const llama_memory_t memory = c->api->llama_get_memory(c->ctx);
  if (c->kept.len >= c->cells.count ||
      c->api->llama_memory_seq_rm(memory, c->seq, c->cells.pos[c->kept.len], -1)) {
    return CKV_OK;
  }
  return ckvl_fail(c->error, CKV_ERROR_ENGINE,
                   "Expected the engine to free the cells from position %d on but it refused",
                   c->cells.pos[c->kept.len]);
}

// What can fail comes with rows that can be put back.
static ckv_status move_on_host(ckvl_compaction *c, const ckvl_state_swap *swap) {
  // The blob of the state, which has these rows and more, is not needed before they are moved.
  for_written_rows(c, swap->blob, save_row);
  ckv_status status = ckvl_rows_gather(c);
  if (!status) status = free_dropped(c);
  if (status) for_written_rows(c, swap->blob, restore_row);
  return status;
}

// Saving rows of a device would take as much memory again. What can be refused comes first: what is
// left to fail then is the device itself.
static ckv_status move_on_device(ckvl_compaction *c, const ckvl_state_swap *swap) {
  ckv_status status = swap->clears ? CKV_OK : free_dropped(c);
  if (status) return status;
  status = ckvl_rows_gather(c);
  if (status) c->is_lost = true;
  return status;
}

ckv_status ckvl_compaction_commit(ckvl_compaction *c) {
  ckvl_state_swap swap = {0};
  ckv_status status = ckvl_state_swap_begin(c, &swap);
  if (!status) status = ckvl_rows_begin(c);
  if (!status) status = ckvl_is_on_device(c) ? move_on_device(c, &swap) : move_on_host(c, &swap);
  if (!status) {
    // From here on the engine has let go of cells: what fails now leaves the sequence empty.
    status = ckvl_state_swap_replace(c, &swap);
    if (status) c->is_lost = true;
  }
  if (c->is_lost) {
    c->api->llama_memory_seq_rm(c->api->llama_get_memory(c->ctx), c->seq, -1, -1);
  }
  ckvl_places_end(c);
  ckvl_state_swap_end(&swap);
  return status;
}
