#include "state_blob.h"

#include <string.h>

#define CELL_BYTES 12          // position, number of sequences, sequence
#define LAYER_HEADER_BYTES 12  // type, row bytes

static const uint8_t *take(ckvl_reader *reader, size_t bytes) {
  if (reader->failed || reader->size - reader->offset < bytes) {
    reader->failed = true;
    return NULL;
  }
  const uint8_t *at = reader->data + reader->offset;
  reader->offset += bytes;
  return at;
}

uint32_t ckvl_read_u32(ckvl_reader *reader) {
  uint32_t value = 0;
  const uint8_t *at = take(reader, sizeof value);
  if (at) memcpy(&value, at, sizeof value);
  return value;
}

uint64_t ckvl_read_u64(ckvl_reader *reader) {
  uint64_t value = 0;
  const uint8_t *at = take(reader, sizeof value);
  if (at) memcpy(&value, at, sizeof value);
  return value;
}

void ckvl_skip(ckvl_reader *reader, size_t bytes) { take(reader, bytes); }

size_t ckvl_blob_row_bytes(const ckvl_layers *layers) {
  size_t bytes = 0;
  for (int32_t l = 0; l < layers->count; l++) {
    bytes += layers->data[l]->keys->nb[1] + layers->data[l]->values->nb[1];
  }
  return bytes;
}

// Of a sequence's state all cells are in one stream; the other streams are a count of 0.
static int32_t streams_of(const ckvl_layers *layers) {
  return layers->count > 0 ? layers->data[0]->streams : 1;
}

size_t ckvl_blob_cache_metadata_bytes(const ckvl_layers *layers, int32_t cells) {
  const size_t counts = 4 + 4 * (size_t)streams_of(layers);
  // A cache without cells is its counts.
  if (cells == 0) return counts;
  return counts + CELL_BYTES * (size_t)cells + 8 + 2 * LAYER_HEADER_BYTES * (size_t)layers->count;
}

size_t ckvl_blob_bytes_to_layer(const ckvl_layers *layers, int32_t cells, int32_t num_layers) {
  const int32_t stream = layers->data[0]->stream;
  return 4 + 4 * ((size_t)stream + 1) + CELL_BYTES * (size_t)cells + 8 +
         LAYER_HEADER_BYTES * (size_t)num_layers;
}

size_t ckvl_blob_cache_bytes(const ckvl_layers *layers, int32_t cells) {
  return ckvl_blob_cache_metadata_bytes(layers, cells) +
         (size_t)cells * ckvl_blob_row_bytes(layers);
}

int32_t ckvl_blob_cache_cells(const uint8_t *data, size_t size) {
  ckvl_reader reader = {.data = data, .size = size};
  const uint32_t streams = ckvl_read_u32(&reader);
  uint32_t cells = ckvl_read_u32(&reader);
  for (uint32_t s = 1; s < streams && cells == 0 && !reader.failed; s++) {
    cells = ckvl_read_u32(&reader);
  }
  return reader.failed || streams < 1 || cells > INT32_MAX ? -1 : (int32_t)cells;
}

static void check_rows(ckvl_reader *reader, const struct ggml_tensor *tensor, int32_t count) {
  const uint32_t type = ckvl_read_u32(reader);
  const uint64_t row_bytes = ckvl_read_u64(reader);
  if (type != (uint32_t)tensor->type || row_bytes != tensor->nb[1]) reader->failed = true;
  ckvl_skip(reader, tensor->nb[1] * (size_t)count);
}

// Index of `value` in a rising list, -1 if it is not there.
static int32_t find(const llama_pos *list, int32_t count, llama_pos value) {
  int32_t low = 0, high = count;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    if (list[middle] < value)
      low = middle + 1;
    else
      high = middle;
  }
  return low < count && list[low] == value ? low : -1;
}

ckv_status ckvl_blob_replace_positions(uint8_t *data, size_t size, llama_seq_id seq,
                                       const ckvl_layers *layers, int32_t count, bool has_rows,
                                       const llama_pos *from, const llama_pos *to,
                                       ckvl_error *error) {
  ckvl_reader reader = {.data = data, .size = size};
  const int32_t streams = streams_of(layers);
  const int32_t stream = layers->count > 0 ? layers->data[0]->stream : 0;
  bool ok = ckvl_read_u32(&reader) == (uint32_t)streams;
  for (int32_t s = 0; s <= stream && ok; s++) {
    ok = ckvl_read_u32(&reader) == (s == stream ? (uint32_t)count : 0);
  }
  const size_t cells = reader.offset;
  for (int32_t i = 0; i < count && ok; i++) {
    ok = find(from, count, (llama_pos)ckvl_read_u32(&reader)) >= 0 && ckvl_read_u32(&reader) == 1 &&
         ckvl_read_u32(&reader) == (uint32_t)seq;
  }
  ok = ok && ckvl_read_u32(&reader) == 0 && ckvl_read_u32(&reader) == (uint32_t)layers->count;
  const int32_t rows = has_rows ? count : 0;
  for (int32_t l = 0; l < layers->count && ok; l++) {
    check_rows(&reader, layers->data[l]->keys, rows);
  }
  for (int32_t l = 0; l < layers->count && ok; l++) {
    check_rows(&reader, layers->data[l]->values, rows);
  }
  for (int32_t s = stream + 1; s < streams && ok; s++) ok = ckvl_read_u32(&reader) == 0;
  if (!ok || reader.failed) {
    return ckvl_fail(error, CKV_ERROR_ENGINE,
                     "Expected the engine's state with %d cells in %d layers but found another at "
                     "byte %zu",
                     count, layers->count, reader.offset);
  }
  for (int32_t i = 0; i < count; i++) {
    uint8_t *const at = data + cells + CELL_BYTES * (size_t)i;
    llama_pos pos;
    memcpy(&pos, at, sizeof pos);
    memcpy(at, &to[find(from, count, pos)], sizeof pos);
  }
  return CKV_OK;
}

void ckvl_blob_list_owner(uint8_t *data, size_t size, llama_seq_id seq, int32_t cells) {
  const size_t bare = CELL_BYTES - sizeof seq, n = (size_t)cells;
  const uint32_t owners = 1;
  uint8_t *const list = data + 8;  // after the number of streams, and of cells
  memmove(list + CELL_BYTES * n, list + bare * n, size - 8 - CELL_BYTES * n);
  for (size_t i = n; i-- > 0;) {
    uint8_t *const cell = list + CELL_BYTES * i;
    memmove(cell, list + bare * i, sizeof(llama_pos));
    memcpy(cell + sizeof(llama_pos), &owners, sizeof owners);
    memcpy(cell + bare, &seq, sizeof seq);
  }
}

bool ckvl_blob_matches(const ckvl_api *api, const uint8_t *data, size_t size,
                       const ckvl_layers *layers, const int32_t *cell, int32_t cells,
                       uint8_t *scratch) {
  ckvl_reader reader = {.data = data, .size = size};
  const size_t others = (size_t)(streams_of(layers) - 1 - layers->data[0]->stream);
  ckvl_skip(&reader, ckvl_blob_cache_metadata_bytes(layers, cells) - 4 * others -
                         2 * LAYER_HEADER_BYTES * (size_t)layers->count - 4);
  if (ckvl_read_u32(&reader) != (uint32_t)layers->count) return false;
  for (int32_t l = 0; l < layers->count; l++) {
    const struct ggml_tensor *keys = layers->data[l]->keys;
    const size_t rows = reader.offset + LAYER_HEADER_BYTES;
    check_rows(&reader, keys, cells);
    if (reader.failed) return false;
    // The first and the last row tell the layers apart: no two have equal keys.
    for (int32_t i = 0; i < cells; i += cells > 1 ? cells - 1 : 1) {
      api->ggml_backend_tensor_get(keys, scratch, ckvl_row_offset(layers->data[l], keys, cell[i]),
                                   keys->nb[1]);
      if (memcmp(scratch, data + rows + keys->nb[1] * (size_t)i, keys->nb[1]) != 0) return false;
    }
  }
  return true;
}
