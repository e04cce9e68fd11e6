#include "fake_engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state_blob.h"

struct llama_context *fake_context(fake_engine *engine) {
  return (struct llama_context *)(void *)engine;
}

static fake_engine *of_context(struct llama_context *ctx) { return (fake_engine *)(void *)ctx; }
static fake_engine *of_memory(llama_memory_t memory) { return (fake_engine *)(void *)memory; }

static llama_memory_t get_memory(const struct llama_context *ctx) {
  return (llama_memory_t)(void *)(uintptr_t)ctx;
}

static uint32_t n_seq_max(const struct llama_context *ctx) {
  return ((const fake_engine *)(const void *)ctx)->sequences;
}

static size_t max_sequences(void) { return FAKE_SEQUENCES; }

static bool is_in(const fake_engine *e, int32_t cell, llama_seq_id seq) {
  return e->position[cell] >= 0 && (seq < 0 || (e->owners[cell] >> seq & 1u));
}

static bool seq_rm(llama_memory_t memory, llama_seq_id seq, llama_pos p0, llama_pos p1) {
  fake_engine *e = of_memory(memory);
  if (e->remove_refuses) return false;
  for (int32_t c = 0; c < FAKE_CELLS; c++) {
    if (!is_in(e, c, seq) || e->position[c] < p0 || (p1 >= 0 && e->position[c] >= p1)) continue;
    e->owners[c] &= ~(1u << seq);
    if (!e->owners[c]) e->position[c] = -1;
  }
  return true;
}

static void seq_cp(llama_memory_t memory, llama_seq_id from, llama_seq_id to, llama_pos p0,
                   llama_pos p1) {
  fake_engine *e = of_memory(memory);
  for (int32_t c = 0; c < FAKE_CELLS; c++) {
    if (!is_in(e, c, from) || e->position[c] < p0 || (p1 >= 0 && e->position[c] >= p1)) continue;
    e->owners[c] |= 1u << to;
  }
}

static void clear(llama_memory_t memory, bool data) {
  fake_engine *e = of_memory(memory);
  e->clears++;
  for (int32_t c = 0; c < FAKE_CELLS; c++) {
    e->position[c] = -1;
    e->owners[c] = 0;
  }
  if (!data) return;
  memset(e->key_data, 0, sizeof e->key_data);
  memset(e->value_data, 0, sizeof e->value_data);
}

static llama_pos seq_pos_min(llama_memory_t memory, llama_seq_id seq) {
  const fake_engine *e = of_memory(memory);
  llama_pos least = -1;
  for (int32_t c = 0; c < FAKE_CELLS; c++) {
    if (is_in(e, c, seq) && (least < 0 || e->position[c] < least)) least = e->position[c];
  }
  return least;
}

static llama_pos seq_pos_max(llama_memory_t memory, llama_seq_id seq) {
  const fake_engine *e = of_memory(memory);
  llama_pos most = -1;
  for (int32_t c = 0; c < FAKE_CELLS; c++) {
    if (is_in(e, c, seq) && e->position[c] > most) most = e->position[c];
  }
  return most;
}

// Writes as far as there is room; counts on.
typedef struct {
  uint8_t *data;
  size_t size, written;
} writer;

static void put(writer *w, const void *bytes, size_t count) {
  if (w->data && w->written + count <= w->size) memcpy(w->data + w->written, bytes, count);
  w->written += count;
}

static void put_u32(writer *w, uint32_t value) { put(w, &value, sizeof value); }

static void put_rows(const fake_engine *e, writer *w, const struct ggml_tensor *t, llama_seq_id seq,
                     bool skip) {
  const uint64_t row = t->nb[1];
  put_u32(w, (uint32_t)t->type);
  put(w, &row, sizeof row);
  for (int32_t c = 0; c < FAKE_CELLS && !skip; c++) {
    if (is_in(e, c, seq)) put(w, (const char *)t->data + (size_t)c * row, row);
  }
}

static void put_state(const fake_engine *e, writer *w, llama_seq_id seq, bool skip) {
  uint32_t count = 0;
  for (int32_t c = 0; c < FAKE_CELLS; c++) count += is_in(e, c, seq);
  put_u32(w, CKVL_BLOB_MAGIC);
  put_u32(w, (uint32_t)seq);
  put_u32(w, e->streams);
  put_u32(w, count);
  for (int32_t c = 0; c < FAKE_CELLS; c++) {
    if (!is_in(e, c, seq)) continue;
    put_u32(w, (uint32_t)e->position[c]);
    uint32_t listed = seq < 0 ? e->owners[c] : 1u << seq;
    listed &= (1u << e->sequences) - 1;
    put_u32(w, (listed & 1u) + (listed >> 1 & 1u));
    for (uint32_t s = 0; s < e->sequences; s++) {
      if (listed >> s & 1u) put_u32(w, s);
    }
  }
  put_u32(w, 0);
  put_u32(w, FAKE_LAYERS);
  for (int32_t l = 0; l < FAKE_LAYERS; l++) put_rows(e, w, &e->keys[l], seq, skip);
  for (int32_t l = 0; l < FAKE_LAYERS; l++) put_rows(e, w, &e->values[l], seq, skip);
  w->written += e->extra_bytes;
}

static size_t get_size(struct llama_context *ctx, llama_seq_id seq, llama_state_seq_flags flags) {
  writer w = {0};
  put_state(of_context(ctx), &w, seq, flags & LLAMA_STATE_SEQ_FLAGS_ON_DEVICE);
  return w.written;
}

// Rows between the cells and where they are saved.
static void copy_rows(fake_engine *e, const int32_t *cells, int32_t count, bool is_save) {
  for (int32_t l = 0; l < FAKE_LAYERS; l++) {
    for (int32_t i = 0; i < count; i++) {
      const size_t key = e->keys[l].nb[1], value = e->values[l].nb[1];
      char *const keys = (char *)e->keys[l].data + (size_t)cells[i] * key;
      char *const values = (char *)e->values[l].data + (size_t)cells[i] * value;
      char *const saved_keys = (char *)e->saved_keys[l] + (size_t)i * key;
      char *const saved_values = (char *)e->saved_values[l] + (size_t)i * value;
      memcpy(is_save ? saved_keys : keys, is_save ? keys : saved_keys, key);
      memcpy(is_save ? saved_values : values, is_save ? values : saved_values, value);
    }
  }
}

static void save_rows(fake_engine *e, llama_seq_id seq) {
  int32_t cells[FAKE_CELLS];
  e->saved_seq = seq;
  e->saved_cells = fake_engine_cells(e, seq, cells);
  copy_rows(e, cells, e->saved_cells, true);
}

static size_t get_data(struct llama_context *ctx, uint8_t *data, size_t size, llama_seq_id seq,
                       llama_state_seq_flags flags) {
  fake_engine *e = of_context(ctx);
  writer w = {.data = data, .size = size};
  put_state(e, &w, seq, flags & LLAMA_STATE_SEQ_FLAGS_ON_DEVICE);
  if (seq >= 0 && e->saves_to_pass > 0) {
    e->saves_to_pass--;
  } else if (seq >= 0 && e->saves_to_fail > 0) {
    e->saves_to_fail--;
    return 0;
  }
  if (flags & LLAMA_STATE_SEQ_FLAGS_ON_DEVICE) save_rows(e, seq);
  return w.written <= size ? w.written : 0;
}

static size_t set_data(struct llama_context *ctx, const uint8_t *data, size_t size,
                       llama_seq_id seq, llama_state_seq_flags flags) {
  fake_engine *e = of_context(ctx);
  const bool on_device = flags & LLAMA_STATE_SEQ_FLAGS_ON_DEVICE;
  seq_rm(get_memory(ctx), seq, -1, -1);
  if (e->restores_to_fail-- > 0) return 0;
  ckvl_reader r = {.data = data, .size = size};
  ckvl_skip(&r, 4);
  const llama_seq_id whose = (llama_seq_id)ckvl_read_u32(&r);
  ckvl_skip(&r, 4);
  int32_t cells[FAKE_CELLS];
  const int32_t count = (int32_t)ckvl_read_u32(&r);
  for (int32_t i = 0, c = 0; i < count; i++, c++) {
    while (e->position[c] >= 0) c++;
    cells[i] = c;
    e->position[c] = (int32_t)ckvl_read_u32(&r);
    e->owners[c] = 1u << seq;
    if (ckvl_read_u32(&r) != 1) return 0;
    ckvl_skip(&r, 4);
  }
  if (on_device && (whose != e->saved_seq || count != e->saved_cells)) return 0;
  if (on_device) copy_rows(e, cells, count, false);
  ckvl_skip(&r, 8);
  for (int32_t side = 0; side < 2; side++) {
    for (int32_t l = 0; l < FAKE_LAYERS; l++) {
      struct ggml_tensor *t = side ? &e->values[l] : &e->keys[l];
      ckvl_skip(&r, 12);
      for (int32_t i = 0; i < count && !on_device; i++) {
        memcpy((char *)t->data + (size_t)cells[i] * t->nb[1], data + r.offset, t->nb[1]);
        ckvl_skip(&r, t->nb[1]);
      }
    }
  }
  return r.failed ? 0 : r.offset;
}

static bool is_host(ggml_backend_buffer_t buffer) {
  return !((const fake_engine *)(const void *)buffer)->on_device;
}

static const char *buffer_name(ggml_backend_buffer_t buffer) {
  (void)buffer;
  return "a fake";
}

static ggml_backend_buffer_type_t buffer_type(ggml_backend_buffer_t buffer) {
  return (ggml_backend_buffer_type_t)(void *)buffer;
}

static ggml_backend_dev_t device_of(ggml_backend_buffer_type_t type) {
  return (ggml_backend_dev_t)(void *)type;
}

static void memory_of(ggml_backend_dev_t device, size_t *available, size_t *total) {
  *available = *total = ((const fake_engine *)(const void *)device)->device_bytes;
}

static ggml_backend_buffer_type_t host_type(ggml_backend_dev_t device) {
  return ((const fake_engine *)(const void *)device)->has_no_host_type
             ? NULL
             : (ggml_backend_buffer_type_t)(void *)device;
}

// A block of memory that knows its engine.
typedef struct {
  fake_engine *engine;
  float data[];
} pinned;

static ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t type, size_t size) {
  fake_engine *e = (fake_engine *)(void *)type;
  pinned *block = e->has_no_host_memory ? NULL : malloc(sizeof *block + size);
  if (!block) return NULL;
  block->engine = e;
  e->pinned++;
  return (ggml_backend_buffer_t)(void *)block;
}

static void *buffer_base(ggml_backend_buffer_t buffer) { return ((pinned *)(void *)buffer)->data; }

static void buffer_free(ggml_backend_buffer_t buffer) {
  ((pinned *)(void *)buffer)->engine->pinned--;
  free(buffer);
}

static void tensor_get(const struct ggml_tensor *t, void *data, size_t offset, size_t size) {
  memcpy(data, (const char *)t->data + offset, size);
}

static void tensor_set(struct ggml_tensor *t, const void *data, size_t offset, size_t size) {
  memcpy((char *)t->data + offset, data, size);
}

static size_t type_size(enum ggml_type type) { return type == GGML_TYPE_F16 ? 2 : 4; }
static size_t row_size(enum ggml_type type, int64_t n) { return type_size(type) * (size_t)n; }

static const char *type_name(enum ggml_type type) {
  (void)type;
  return "a type";
}

static void make_tensor(fake_engine *e, struct ggml_tensor *t, const char *name, int32_t layer,
                        float *data, int32_t elements) {
  *t = (struct ggml_tensor){
      .type = GGML_TYPE_F32,
      .buffer = (ggml_backend_buffer_t)(void *)e,
      .ne = {elements, FAKE_CELLS, 1, 1},
      .nb = {4, 4 * (size_t)elements, 4 * (size_t)elements * FAKE_CELLS,
             4 * (size_t)elements * FAKE_CELLS},
      .data = data,
  };
  snprintf(t->name, sizeof t->name, "cache_%s_l%d", name, layer);
  for (int32_t i = 0; i < elements * FAKE_CELLS; i++) {
    data[i] = (float)(i + 100000 * layer + (name[0] == 'v' ? 50000 : 0));
  }
}

void fake_engine_init(fake_engine *e) {
  memset(e, 0, sizeof *e);
  e->streams = 1;
  e->sequences = 2;
  e->api = (ckvl_api){
      .flash_attention = GGML_OP_FLASH_ATTN_EXT,
      .copy = GGML_OP_CPY,
      .set_rows = GGML_OP_SET_ROWS,
      .llama_get_memory = get_memory,
      .llama_max_parallel_sequences = max_sequences,
      .llama_memory_clear = clear,
      .llama_memory_seq_cp = seq_cp,
      .llama_memory_seq_rm = seq_rm,
      .llama_memory_seq_pos_max = seq_pos_max,
      .llama_memory_seq_pos_min = seq_pos_min,
      .llama_n_seq_max = n_seq_max,
      .llama_state_seq_get_size_ext = get_size,
      .llama_state_seq_get_data_ext = get_data,
      .llama_state_seq_set_data_ext = set_data,
      .ggml_backend_buffer_get_type = buffer_type,
      .ggml_backend_buffer_is_host = is_host,
      .ggml_backend_buffer_name = buffer_name,
      .ggml_backend_buft_get_device = device_of,
      .ggml_backend_dev_memory = memory_of,
      .ggml_backend_tensor_get = tensor_get,
      .ggml_backend_tensor_set = tensor_set,
      .ggml_row_size = row_size,
      .ggml_type_name = type_name,
      .ggml_type_size = type_size,
  };
  e->host = (ckvl_host_api){
      .ggml_backend_buffer_free = buffer_free,
      .ggml_backend_buffer_get_base = buffer_base,
      .ggml_backend_buft_alloc_buffer = alloc_buffer,
      .ggml_backend_dev_host_buffer_type = host_type,
  };
  for (int32_t c = 0; c < FAKE_CELLS; c++) e->position[c] = -1;
  for (int32_t l = 0; l < FAKE_LAYERS; l++) {
    make_tensor(e, &e->keys[l], "k", l, e->key_data[l], FAKE_HEADS * FAKE_KEY_DIM);
    make_tensor(e, &e->values[l], "v", l, e->value_data[l], FAKE_HEADS * FAKE_VALUE_DIM);
  }
}

void fake_engine_add(fake_engine *e, int32_t sequence, int32_t first, int32_t count, int32_t cell) {
  for (int32_t i = 0; i < count; i++, cell++) {
    while (e->position[cell % FAKE_CELLS] >= 0) cell++;
    e->position[cell % FAKE_CELLS] = first + i;
    e->owners[cell % FAKE_CELLS] = 1u << sequence;
  }
}

int32_t fake_engine_cells(const fake_engine *e, int32_t sequence, int32_t *cells) {
  int32_t count = 0;
  for (int32_t c = 0; c < FAKE_CELLS; c++) {
    if (is_in(e, c, sequence)) cells[count++] = c;
  }
  return count;
}
