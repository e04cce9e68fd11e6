// The llama.cpp state reader with bytes from anywhere: as a state that a user restores, as the part
// of a cache whose positions are replaced, and as what an engine says of its cells.
#include <stdbool.h>

#include "cells.h"
#include "input.h"
#include "state_check.h"

#define MOST_LAYERS 3
#define MOST_CELLS 40

static struct {
  const uint8_t *data;
  size_t size;
} engine;

static uint32_t n_seq_max(const struct llama_context *ctx) {
  (void)ctx;
  return 4;
}

static size_t get_size(struct llama_context *ctx, llama_seq_id seq, llama_state_seq_flags flags) {
  (void)ctx, (void)seq, (void)flags;
  return engine.size;
}

static size_t get_data(struct llama_context *ctx, uint8_t *data, size_t size, llama_seq_id seq,
                       llama_state_seq_flags flags) {
  (void)ctx, (void)seq, (void)flags;
  const size_t n = size < engine.size ? size : engine.size;
  if (n) memcpy(data, engine.data, n);
  return n;
}

static void tensor_get(const struct ggml_tensor *t, void *data, size_t offset, size_t size) {
  memcpy(data, (const char *)t->data + offset, size);
}

static const ckvl_api API = {
    .llama_n_seq_max = n_seq_max,
    .llama_state_seq_get_size_ext = get_size,
    .llama_state_seq_get_data_ext = get_data,
    .ggml_backend_tensor_get = tensor_get,
};

// A copy of exactly what is left of the input.
static uint8_t *rest_of(input *in, size_t *size) {
  *size = in->size;
  uint8_t *copy = exactly(in->size, 1);
  take(in, copy, in->size);
  return copy;
}

static void check_restored(input *in) {
  ckvl_state_limits limits = {.num_caches = take_in(in, 0, 3),
                              .max_cells = {take_in(in, 0, 255), take_in(in, 0, 255)},
                              .values_transposed = take_u8(in) & 1,
                              .key_type = GGML_TYPE_F16,
                              .value_type = GGML_TYPE_F16};
  if (take_u8(in) & 1) limits.max_cells[0] = INT32_MAX;
  size_t size;
  uint8_t *data = rest_of(in, &size);
  ckvl_state_summary summary;
  ckvl_error error = {""};
  const ckv_status status = ckvl_state_check(data, size, &limits, &summary, &error);
  PROMISE((status == CKV_OK) == (error.text[0] == '\0'), "%d, \"%s\"", status, error.text);
  if (status == CKV_OK) {
    PROMISE(
        summary.next >= 0 && summary.compacted_end >= 0 && summary.compacted_end <= summary.next,
        "%d, %d", summary.next, summary.compacted_end);
  }
  free(data);
}

typedef struct cache {
  struct ggml_tensor tensors[2 * MOST_LAYERS];
  ckvl_layer layers[MOST_LAYERS];
  const ckvl_layer *list[MOST_LAYERS];
  ckvl_layers all;
} cache;

// Layers with rows of a few bytes; theirs is the size that a state must have.
static void make_cache(input *in, cache *c) {
  *c = (cache){0};
  c->all = (ckvl_layers){c->list, take_in(in, 0, MOST_LAYERS)};
  const int32_t streams = take_in(in, 1, 3);
  for (int32_t l = 0; l < c->all.count; l++) {
    for (int32_t side = 0; side < 2; side++) {
      const size_t row = (size_t)take_in(in, 1, 8);
      struct ggml_tensor *t = &c->tensors[2 * l + side];
      *t = (struct ggml_tensor){.type = GGML_TYPE_F16,
                                .ne = {(int64_t)row, MOST_CELLS, streams, 1},
                                .nb = {1, row, row * MOST_CELLS, row * MOST_CELLS}};
      t->data = exactly(row * MOST_CELLS * (size_t)streams, (uint32_t)l);
    }
    c->layers[l] = (ckvl_layer){.index = l,
                                .streams = streams,
                                .stream = streams - 1,
                                .keys = &c->tensors[2 * l],
                                .values = &c->tensors[2 * l + 1]};
    c->list[l] = &c->layers[l];
  }
}

static void free_cache(cache *c) {
  for (int32_t i = 0; i < 2 * MOST_LAYERS; i++) free(c->tensors[i].data);
}

static void replace_positions(input *in) {
  cache c;
  make_cache(in, &c);
  const int32_t count = take_in(in, 0, MOST_CELLS), seq = take_in(in, 0, 3);
  const bool has_rows = take_u8(in) % 2 == 0;
  llama_pos *from = exactly(sizeof *from * (size_t)count, 1);
  llama_pos *to = exactly(sizeof *to * (size_t)count, 1);
  for (int32_t i = 0; i < count; i++) {
    from[i] = 2 * i;
    to[i] = 1000 + i;
  }
  size_t size;
  uint8_t *data = rest_of(in, &size);
  uint8_t *before = exactly(size, 1);
  if (size) memcpy(before, data, size);
  ckvl_error error = {""};
  const ckv_status status =
      ckvl_blob_replace_positions(data, size, seq, &c.all, count, has_rows, from, to, &error);
  size_t differing = 0;
  for (size_t i = 0; i < size; i++) differing += data[i] != before[i];
  PROMISE(status == CKV_OK || (differing == 0 && error.text[0]), "%zu bytes", differing);
  PROMISE(differing <= 4 * (size_t)count, "%zu bytes of %d positions", differing, count);
  (void)ckvl_blob_cache_cells(data, size);
  (void)ckvl_blob_cache_bytes(&c.all, count);
  if (c.all.count > 0) {
    int32_t *cell = exactly(sizeof *cell * (size_t)count, 1);
    for (int32_t i = 0; i < count; i++) cell[i] = i;
    uint8_t scratch[8];
    (void)ckvl_blob_bytes_to_layer(&c.all, count, c.all.count);
    (void)ckvl_blob_matches(&API, data, size, &c.all, cell, count, scratch);
    free(cell);
  }
  free(from);
  free(to);
  free(data);
  free(before);
  free_cache(&c);
}

static void read_cells(input *in) {
  const int32_t seq = take_in(in, 0, 3), streams = take_in(in, 0, 3);
  const int32_t count = take_in(in, 0, MOST_CELLS);
  int32_t *index = take_u8(in) & 1 ? exactly(sizeof *index * (size_t)count, 1) : NULL;
  for (int32_t i = 0; index && i < count; i++) index[i] = i;
  uint8_t *data = rest_of(in, &engine.size);
  engine.data = data;
  ckvl_cells cells;
  ckvl_error error = {""};
  const ckv_status status = ckvl_cells_read(&API, NULL, seq, streams, index, count, &cells, &error);
  PROMISE((status == CKV_OK) == (error.text[0] == '\0'), "%d, \"%s\"", status, error.text);
  for (int32_t i = 0; status == CKV_OK && i < cells.count; i++) {
    PROMISE(cells.pos[i] > (i ? cells.pos[i - 1] : -1), "position %d", cells.pos[i]);
    PROMISE(!index || cells.cell[i] >= 0, "cell %d", cells.cell[i]);
  }
  ckvl_cells_free(&cells);
  free(data);
  free(index);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input in = {data, size};
  switch (take_u8(&in) % 3) {
    case 0:
      check_restored(&in);
      break;
    case 1:
      replace_positions(&in);
      break;
    default:
      read_cells(&in);
  }
  return 0;
}
