#include <stdlib.h>
#include <string.h>

#include "attention_node.h"
#include "compaction.h"

// Splits the captured layers by mask: those with `mask`, and the others.
static ckv_status split_layers(const ckvl_capture *capture, int32_t mask, ckvl_layers *with,
                               ckvl_layers *others, ckvl_error *error) {
  const size_t bytes = sizeof(ckvl_layer *) * (size_t)capture->num_layers;
  if (!with->data) with->data = malloc(bytes);
  if (!others->data) others->data = malloc(bytes);
  if (!with->data || !others->data) return ckvl_fail_memory(error, 2 * bytes);
  with->count = others->count = 0;
  for (int32_t l = 0; l < capture->num_layers; l++) {
    ckvl_layers *to = capture->layers[l].mask == mask ? with : others;
    to->data[to->count++] = &capture->layers[l];
  }
  return CKV_OK;
}

static ckv_status read_sliding_blob(ckvl_compaction *c) {
  const llama_state_seq_flags flags = LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY;
  c->sliding_bytes = c->api->llama_state_seq_get_size_ext(c->ctx, c->seq, flags);
  c->sliding_blob = malloc(c->sliding_bytes + 1);
  if (!c->sliding_blob) return ckvl_fail_memory(c->error, c->sliding_bytes);
  const size_t read = c->api->llama_state_seq_get_data_ext(c->ctx, c->sliding_blob,
                                                           c->sliding_bytes, c->seq, flags);
  if (read == c->sliding_bytes && read > CKVL_BLOB_HEADER_BYTES) return CKV_OK;
  return ckvl_fail(c->error, CKV_ERROR_ENGINE,
                   "Expected %zu bytes of sliding-window state but found %zu", c->sliding_bytes,
                   read);
}

// Whether c->sliding are the layers of the sliding-window cache: its state must be exactly theirs.
static ckv_status is_sliding(const ckvl_compaction *c, int32_t mask, bool *answer) {
  const uint8_t *part = c->sliding_blob + CKVL_BLOB_HEADER_BYTES;
  const size_t size = c->sliding_bytes - CKVL_BLOB_HEADER_BYTES;
  const ckvl_mask *seen = &c->capture->masks[mask];
  *answer = c->sliding.count > 0 && ckvl_blob_cache_cells(part, size) == seen->count &&
            ckvl_blob_cache_bytes(&c->sliding, seen->count) == size;
  if (!*answer) return CKV_OK;
  size_t row = 0;
  for (int32_t l = 0; l < c->sliding.count; l++) {
    if (c->sliding.data[l]->keys->nb[1] > row) row = c->sliding.data[l]->keys->nb[1];
  }
  uint8_t *scratch = malloc(row);
  if (!scratch) return ckvl_fail_memory(c->error, row);
  *answer = ckvl_blob_matches(c->api, part, size, &c->sliding, seen->cells, seen->count, scratch);
  free(scratch);
  return CKV_OK;
}

// Which layers are global and which have a sliding window. Nothing but the state itself tells:
// sizes and masks may be equal while the sequence is short.
static ckv_status classify_layers(ckvl_compaction *c, int32_t *global_mask) {
  const ckvl_capture *capture = c->capture;
  *global_mask = capture->layers[0].mask;
  ckv_status status = split_layers(capture, *global_mask, &c->global, &c->sliding, c->error);
  if (status || c->sliding.count == 0) return status;
  status = read_sliding_blob(c);
  if (status) return status;
  bool answer[CKVL_MAX_MASKS] = {false, false};
  int32_t found = 0, sliding_mask = 0;
  for (int32_t mask = 0; mask < CKVL_MAX_MASKS; mask++) {
    status = split_layers(capture, mask, &c->sliding, &c->global, c->error);
    if (!status) status = is_sliding(c, mask, &answer[mask]);
    if (status) return status;
    if (answer[mask]) {
      found++;
      sliding_mask = mask;
    }
  }
  if (found != 1) {
    return ckvl_fail(c->error, CKV_ERROR_UNSUPPORTED,
                     "Expected to tell global layers from sliding-window ones but found %s",
                     found ? "both alike" : "neither in the engine's state");
  }
  *global_mask = 1 - sliding_mask;
  return split_layers(capture, sliding_mask, &c->sliding, &c->global, c->error);
}

static bool is_run(const ckvl_cells *cells) {
  int32_t i = 1;
  while (i < cells->count && cells->cell[i] == cells->cell[i - 1] + 1) i++;
  return i >= cells->count;
}

// Each layer's place.
static ckv_status find_places(ckvl_compaction *c) {
  const size_t bytes = sizeof *c->place * (size_t)c->global.count;
  c->place = malloc(bytes);
  if (!c->place) return ckvl_fail_memory(c->error, bytes);
  for (int32_t l = 0; l < c->global.count; l++) {
    ckvl_place found;
    const ckv_status status =
        ckvl_place_find(&found, c->api, c->global.data[l], c->ckv, c->devices, c->error);
    if (status) return status;
    int32_t p = 0;
    while (p < c->num_places && c->places[p].ckv != found.ckv) p++;
    if (p == c->num_places) c->places[c->num_places++] = found;
    c->place[l] = p;
  }
  return CKV_OK;
}

// The whole state must have exactly the size that these layers and cells explain: then no layer was
// missed, and the format is the known one.
static ckv_status check_sizes(ckvl_compaction *c) {
  const int32_t n = c->cells.count;
  // An engine that does not know the flag counts the rows all the same.
  c->knows_device = c->cells.metadata_bytes < ckvl_blob_row_bytes(&c->global) * (size_t)n;
  const size_t rest = c->sliding_bytes ? c->sliding_bytes - CKVL_BLOB_HEADER_BYTES : 0;
  const size_t expected = CKVL_BLOB_HEADER_BYTES + ckvl_blob_cache_bytes(&c->global, n) + rest;
  const size_t found =
      c->api->llama_state_seq_get_size_ext(c->ctx, c->seq, LLAMA_STATE_SEQ_FLAGS_NONE);
  if (expected == found) return CKV_OK;
  return ckvl_fail(c->error, CKV_ERROR_UNSUPPORTED,
                   "Expected a state of %zu bytes for %d tokens in %d + %d layers but the engine "
                   "has %zu",
                   expected, n, c->global.count, c->sliding.count, found);
}

// Sequences share the cells of a stream, and the engine takes numbers that the context was not made for,
// but names no such owner in its states: whether cells are shared with one cannot be told.
static ckv_status check_unlisted(const ckvl_compaction *c) {
  const llama_memory_t memory = c->api->llama_get_memory(c->ctx);
  const int32_t most = (int32_t)c->api->llama_max_parallel_sequences();
  const int32_t listed = (int32_t)c->api->llama_n_seq_max(c->ctx);
  for (llama_seq_id s = listed; s < most && c->global.data[0]->streams == 1; s++) {
    if (s == c->seq || c->api->llama_memory_seq_pos_max(memory, s) < 0) continue;
    return ckvl_fail(
        c->error, CKV_ERROR_UNSUPPORTED,
        "Expected sequences of 0 to %d, which the context was made for, but found cells "
        "of sequence %d",
        listed - 1, s);
  }
  return CKV_OK;
}

ckv_status ckvl_compaction_prepare(ckvl_compaction *c) {
  const ckvl_capture *capture = c->capture;
  if (capture->status) {
    memcpy(c->error, &capture->reason, sizeof *c->error);
    return capture->status;
  }
  if (capture->num_layers == 0) {
    return ckvl_fail(c->error, CKV_ERROR_UNSUPPORTED,
                     "Expected flash attention, which shows its queries, but the context computes "
                     "attention without it");
  }
  const llama_pos newest =
      c->api->llama_memory_seq_pos_max(c->api->llama_get_memory(c->ctx), c->seq);
  if (!capture->has_cells || capture->next != newest + 1) {
    return ckvl_fail(
        c->error, CKV_ERROR_INVALID_ARGUMENT,
        "Expected the queries and cells up to position %d but those captured end at %d", newest,
        capture->next - 1);
  }
  int32_t mask_index;
  ckv_status status = classify_layers(c, &mask_index);
  if (status) return status;
  status = check_unlisted(c);
  if (status) return status;
  const ckvl_mask *mask = &capture->masks[mask_index];
  ckvl_alone_find(c);
  status = c->alone.is_so ? ckvl_cells_read_alone(c->api, c->ctx, c->seq, mask->cells, mask->count,
                                                  &c->cells, c->error)
                          : ckvl_cells_read(c->api, c->ctx, c->seq, c->global.data[0]->streams,
                                            mask->cells, mask->count, &c->cells, c->error);
  if (!status && c->cells.is_shared) {
    status =
        ckvl_fail(c->error, CKV_ERROR_UNSUPPORTED,
                  "Expected a sequence with cells of its own but found cells that a copy of it "
                  "shares: rows are moved in place, so remove the other one first");
  }
  c->is_run = !status && is_run(&c->cells);
  if (!status) status = find_places(c);
  if (!status) status = c->alone.is_so ? ckvl_alone_check_size(c) : check_sizes(c);
  return status;
}

void ckvl_compaction_free(ckvl_compaction *c) {
  ckvl_places_end(c);
  ckvl_cells_free(&c->cells);
  ckvl_kept_free(&c->kept);
  free(c->global.data);
  free(c->sliding.data);
  free(c->sliding_blob);
  free(c->place);
  c->place = NULL;
  c->num_places = 0;
  c->global = c->sliding = (ckvl_layers){0};
  c->sliding_blob = NULL;
}
