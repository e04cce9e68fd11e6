#include "state_check.h"

#include <stdlib.h>

#define CELL_BYTES 12

static ckv_status fail(ckvl_error *error, const char *what, long long least, long long most,
                       long long found) {
  return ckvl_fail(error, CKV_ERROR_INVALID_ARGUMENT,
                   "Expected a state with %s from %lld to %lld but found %lld", what, least, most,
                   found);
}

static int by_value(const void *a, const void *b) {
  const llama_pos x = *(const llama_pos *)a, y = *(const llama_pos *)b;
  return (x > y) - (x < y);
}

// The positions of a cache's cells, sorted: cells may be in any order.
static ckv_status read_positions(ckvl_reader *reader, llama_pos *positions, int32_t count,
                                 ckvl_error *error) {
  for (int32_t i = 0; i < count; i++) {
    const llama_pos position = (llama_pos)ckvl_read_u32(reader);
    const uint32_t owners = ckvl_read_u32(reader);
    ckvl_skip(reader, 4);  // the sequence that it was saved from
    if (position < 0 || position == INT32_MAX) {
      return fail(error, "positions", 0, INT32_MAX - 1, position);
    }
    if (owners != 1) return fail(error, "sequences per cell", 1, 1, owners);
    positions[i] = position;
  }
  qsort(positions, (size_t)count, sizeof *positions, by_value);
  for (int32_t i = 1; i < count; i++) {
    if (positions[i] == positions[i - 1]) {
      return ckvl_fail(error, CKV_ERROR_INVALID_ARGUMENT,
                       "Expected a state with one cell per position but found two at %d",
                       positions[i]);
    }
  }
  return CKV_OK;
}

// Skips one layer's rows. Both factors come from the state: their product must not wrap.
static void skip_rows(ckvl_reader *reader, uint64_t row_bytes, uint64_t rows) {
  const uint64_t left = reader->size - reader->offset;
  if (rows != 0 && row_bytes > left / rows) {
    reader->failed = true;
    return;
  }
  ckvl_skip(reader, (size_t)(row_bytes * rows));
}

static ckv_status skip_side(ckvl_reader *reader, uint32_t layers, int32_t cells, bool transposed,
                            enum ggml_type type, ckvl_error *error) {
  for (uint32_t l = 0; l < layers && !reader->failed; l++) {
    const uint32_t found = ckvl_read_u32(reader);
    if (!reader->failed && found != (uint32_t)type) {
      return ckvl_fail(error, CKV_ERROR_INVALID_ARGUMENT,
                       "Expected a state with rows of the context's type %d but found type %u in "
                       "layer %u",
                       (int)type, found, l);
    }
    if (transposed) {
      const uint64_t element_bytes = ckvl_read_u32(reader);
      const uint64_t elements = ckvl_read_u32(reader);
      skip_rows(reader, element_bytes * elements, (uint64_t)cells);
    } else {
      skip_rows(reader, ckvl_read_u64(reader), (uint64_t)cells);
    }
  }
  return CKV_OK;
}

static ckv_status read_layers(ckvl_reader *reader, int32_t cells, const ckvl_state_limits *limits,
                              ckvl_error *error) {
  const uint32_t transposed = ckvl_read_u32(reader);
  const uint32_t layers = ckvl_read_u32(reader);
  if (reader->failed) return CKV_OK;
  if (transposed != (uint32_t)limits->values_transposed) {
    return ckvl_fail(error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected the state of a context %s flash attention but found another",
                     limits->values_transposed ? "without" : "with");
  }
  if (layers < 1 || layers > CKVL_MAX_LAYERS) {
    return fail(error, "layers", 1, CKVL_MAX_LAYERS, layers);
  }
  ckv_status status = skip_side(reader, layers, cells, false, limits->key_type, error);
  // Models whose keys are their values have no values.
  if (!status && reader->offset < reader->size) {
    status = skip_side(reader, layers, cells, limits->values_transposed, limits->value_type, error);
  }
  return status;
}

// Reads a cache's part. positions: to be freed.
static ckv_status read_cache(ckvl_reader *reader, const ckvl_state_limits *limits, int32_t cache,
                             llama_pos **positions, int32_t *count, ckvl_error *error) {
  const uint32_t streams = ckvl_read_u32(reader);
  const uint32_t cells = ckvl_read_u32(reader);
  if (reader->failed) return CKV_OK;
  if (streams != 1) return fail(error, "streams", 1, 1, streams);
  if (cells > (uint32_t)limits->max_cells[cache]) {
    return fail(error, "cells", 0, limits->max_cells[cache], cells);
  }
  *count = (int32_t)cells;
  if (cells == 0) return CKV_OK;
  // Before memory for them: there must be as many.
  if (cells > (reader->size - reader->offset) / CELL_BYTES) {
    reader->failed = true;
    return CKV_OK;
  }
  *positions = malloc(sizeof **positions * cells);
  if (!*positions) return ckvl_fail_memory(error, sizeof **positions * cells);
  const ckv_status status = read_positions(reader, *positions, *count, error);
  return status ? status : read_layers(reader, *count, limits, error);
}

static ckv_status check(ckvl_reader *reader, const ckvl_state_limits *limits,
                        llama_pos *positions[2], int32_t counts[2], ckvl_error *error) {
  const uint32_t magic = ckvl_read_u32(reader);
  ckvl_skip(reader, 4);
  if (!reader->failed && magic != CKVL_BLOB_MAGIC) {
    return ckvl_fail(error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected a state that begins with %08x but found %08x", CKVL_BLOB_MAGIC,
                     magic);
  }
  for (int32_t c = 0; c < limits->num_caches && !reader->failed; c++) {
    const ckv_status status = read_cache(reader, limits, c, &positions[c], &counts[c], error);
    if (status) return status;
  }
  if (reader->failed || reader->offset != reader->size) {
    return ckvl_fail(error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected a state as long as its header says but found %zu bytes, %s",
                     reader->size, reader->failed ? "which are too few" : "which are too many");
  }
  return CKV_OK;
}

ckv_status ckvl_state_check(const uint8_t *data, size_t size, const ckvl_state_limits *limits,
                            ckvl_state_summary *summary, ckvl_error *error) {
  *summary = (ckvl_state_summary){0};
  if (limits->num_caches < 1 || limits->num_caches > 2) {
    return ckvl_fail(error, CKV_ERROR_UNSUPPORTED,
                     "Expected a model whose memory is all KV cache but found another");
  }
  ckvl_reader reader = {.data = data, .size = size};
  llama_pos *positions[2] = {NULL, NULL};
  int32_t counts[2] = {0, 0};
  ckv_status status = check(&reader, limits, positions, counts, error);
  if (!status && counts[0] > 0) {
    const llama_pos newest = positions[0][counts[0] - 1];
    // Only the newest token is known to be in all layers if any was dropped.
    *summary = (ckvl_state_summary){
        .next = newest + 1,
        .compacted_end = newest + 1 == counts[0] ? 0 : newest,
    };
  }
  const llama_pos sliding_next = !status && counts[1] > 0 ? positions[1][counts[1] - 1] + 1 : 0;
  if (!status && limits->num_caches == 2 && sliding_next != summary->next) {
    status = ckvl_fail(error, CKV_ERROR_INVALID_ARGUMENT,
                       "Expected a state whose sliding windows end at position %d but found %d",
                       summary->next - 1, sliding_next - 1);
  }
  free(positions[0]);
  free(positions[1]);
  return status;
}
