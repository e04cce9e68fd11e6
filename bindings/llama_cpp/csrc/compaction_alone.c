// A sequence that has the cache for itself, as most have. Nobody else's cells need be looked at, so one
// walk of the engine over the cells tells them. And the cache may be cleared, which takes the engine a
// fraction of freeing ten thousands of cells one by one.
//
// What is to be saved before is a part of the sequence: its cells are lent to a spare one, which adds the
// spare to their owners, and the state of that goes out.
#include <string.h>

#include "compaction.h"

#define UNLISTED_BYTES 4  // that a cell in a state lacks if the engine does not name its sequence

static llama_memory_t memory_of(const ckvl_compaction *c) {
  return c->api->llama_get_memory(c->ctx);
}

// Cells with positions from `first` up to `end`, -1: all.
static void lend(const ckvl_compaction *c, llama_pos first, llama_pos end) {
  c->api->llama_memory_seq_cp(memory_of(c), c->seq, c->alone.spare, first, end);
}

static void give_back(const ckvl_compaction *c) {
  c->api->llama_memory_seq_rm(memory_of(c), c->alone.spare, -1, -1);
}

static void lend_newest(const ckvl_compaction *c) {
  const llama_pos newest = c->cells.pos[c->cells.count - 1];
  lend(c, newest, newest + 1);
}

void ckvl_alone_find(ckvl_compaction *c) {
  const int32_t most = (int32_t)c->api->llama_max_parallel_sequences();
  c->alone = (ckvl_alone){.spare = c->seq == 0};
  c->alone.is_listed = (uint32_t)c->alone.spare < c->api->llama_n_seq_max(c->ctx);
  // With sliding windows the engine tells the positions of those alone, and others have no cell to lend.
  if (c->sliding.count > 0 || c->global.data[0]->streams != 1 || most < 2) return;
  // Numbers that the context does not use are looked at, too: a host may copy to one.
  for (llama_seq_id s = 0; s < most; s++) {
    if (s != c->seq && c->api->llama_memory_seq_pos_min(memory_of(c), s) >= 0) return;
  }
  c->alone.is_so = true;
}

// Of a state of the spare sequence with that many cells.
static size_t unlisted_bytes(const ckvl_compaction *c, int32_t cells) {
  return c->alone.is_listed ? 0 : UNLISTED_BYTES * (size_t)cells;
}

// The state of one cell must have exactly the size that these layers explain: then no layer was missed,
// and the format is the known one.
ckv_status ckvl_alone_check_size(ckvl_compaction *c) {
  lend_newest(c);
  const size_t found =
      c->api->llama_state_seq_get_size_ext(c->ctx, c->alone.spare, LLAMA_STATE_SEQ_FLAGS_NONE);
  const size_t on_device =
      c->api->llama_state_seq_get_size_ext(c->ctx, c->alone.spare, LLAMA_STATE_SEQ_FLAGS_ON_DEVICE);
  give_back(c);
  const size_t expected =
      CKVL_BLOB_HEADER_BYTES + ckvl_blob_cache_bytes(&c->global, 1) - unlisted_bytes(c, 1);
  c->knows_device = on_device == expected - ckvl_blob_row_bytes(&c->global);
  if (expected == found) return CKV_OK;
  return ckvl_fail(c->error, CKV_ERROR_UNSUPPORTED,
                   "Expected a state of %zu bytes for a token in %d layers but the engine has %zu",
                   expected, c->global.count, found);
}

// The state of the kept cells, as that of the spare sequence with the kept tokens' positions.
static ckv_status build_state(const ckvl_compaction *c, const ckvl_state_swap *swap, size_t *size) {
  const int32_t kept = c->kept.len;
  const size_t cache = ckvl_blob_cache_metadata_bytes(&c->global, kept);
  const size_t expected = CKVL_BLOB_HEADER_BYTES + cache - unlisted_bytes(c, kept);
  const size_t read = c->api->llama_state_seq_get_data_ext(c->ctx, swap->blob, swap->bytes,
                                                           c->alone.spare, swap->flags);
  if (read != expected) {
    return ckvl_fail(c->error, CKV_ERROR_ENGINE,
                     "Expected the engine to save %zu bytes of state but found %zu", expected,
                     read);
  }
  uint8_t *const part = swap->blob + CKVL_BLOB_HEADER_BYTES;
  if (!c->alone.is_listed) ckvl_blob_list_owner(part, cache, c->alone.spare, kept);
  *size = CKVL_BLOB_HEADER_BYTES + cache;
  return ckvl_blob_replace_positions(part, cache, c->alone.spare, &c->global, kept, false,
                                     c->cells.pos, swap->positions, c->error);
}

// The engine keeps device memory for a state that was saved there until the next one: that one is of one
// token.
static void shrink_device_state(const ckvl_compaction *c, const ckvl_state_swap *swap) {
  lend_newest(c);
  c->api->llama_state_seq_get_data_ext(c->ctx, swap->blob, swap->bytes, c->alone.spare,
                                       swap->flags);
  give_back(c);
}

ckv_status ckvl_alone_replace(const ckvl_compaction *c, ckvl_state_swap *swap) {
  const int32_t n = c->cells.count, kept = c->kept.len;
  const llama_pos newest = c->cells.pos[n - 1];
  size_t size = 0;
  lend(c, c->cells.pos[0], kept < n ? c->cells.pos[kept] : -1);
  ckv_status status = build_state(c, swap, &size);
  if (status) {
    give_back(c);
    return status;
  }
  c->api->llama_memory_clear(memory_of(c), false);
  if (!ckvl_state_swap_set(c, swap, size) ||
      c->api->llama_memory_seq_pos_max(memory_of(c), c->seq) != newest) {
    return ckvl_fail(c->error, CKV_ERROR_ENGINE,
                     "Expected the engine to restore %zu bytes of state but it did not", size);
  }
  shrink_device_state(c, swap);
  return CKV_OK;
}
