#include "capture.h"

#include <stdlib.h>
#include <string.h>

#include "attention_node.h"
#include "capture_mask.h"
#include "places.h"
#include "query_ring.h"

size_t ckvl_row_offset(const ckvl_layer *layer, const struct ggml_tensor *rows, int32_t cell) {
  return (size_t)layer->stream * rows->nb[2] + (size_t)cell * rows->nb[1];
}

void ckvl_capture_init(ckvl_capture *capture, const ckvl_api *api) {
  memset(capture, 0, sizeof *capture);
  capture->api = api;
  capture->next = -1;
}

void ckvl_capture_free(ckvl_capture *capture) {
  for (int32_t l = 0; l < capture->num_layers; l++) {
    ckvl_query_ring_free(capture, &capture->layers[l]);
  }
  for (int32_t m = 0; m < CKVL_MAX_MASKS; m++) free(capture->masks[m].cells);
  free(capture->layers);
  free(capture->caches.data);
  const bool has_one_mask = capture->has_one_mask;
  const ckvl_host_api *const pins = capture->pins;
  ckvl_capture_init(capture, capture->api);
  capture->has_one_mask = has_one_mask;
  capture->pins = pins;
}

void ckvl_capture_forget(ckvl_capture *capture) {
  capture->next = -1;
  capture->rows = 0;
  for (int32_t l = 0; l < capture->num_layers; l++) capture->layers[l].rows = 0;
  ckvl_capture_forget_cells(capture);
}

void ckvl_capture_forget_cells(ckvl_capture *capture) {
  capture->has_cells = false;
  for (int32_t m = 0; m < CKVL_MAX_MASKS; m++) {
    capture->masks[m].tensor = NULL;
    capture->masks[m].count = 0;
  }
}

static ckv_status copy_layers(ckvl_capture *to, const ckvl_capture *from, ckvl_error *error) {
  const size_t layers = sizeof *to->layers * (size_t)from->num_layers;
  const size_t caches = sizeof *to->caches.data * (size_t)from->caches.count;
  to->layers = malloc(layers + 1);
  to->caches.data = malloc(caches + 1);
  if (!to->layers || !to->caches.data) return ckvl_fail_memory(error, layers + caches);
  to->capacity = from->num_layers;
  to->caches.count = from->caches.count;
  if (caches) memcpy(to->caches.data, from->caches.data, caches);
  for (; to->num_layers < from->num_layers; to->num_layers++) {
    const ckvl_layer *layer = &from->layers[to->num_layers];
    const size_t row = sizeof(float) * (size_t)layer->num_q_heads * (size_t)layer->key_dim;
    float *queries = malloc(row * CKVL_WINDOW);
    if (!queries) return ckvl_fail_memory(error, row * CKVL_WINDOW);
    memcpy(queries, layer->queries, row * (size_t)layer->rows);
    to->layers[to->num_layers] = *layer;
    to->layers[to->num_layers].queries = queries;
    to->layers[to->num_layers].pinned = NULL;
  }
  return CKV_OK;
}

ckv_status ckvl_capture_copy(ckvl_capture *to, const ckvl_capture *from, ckvl_error *error) {
  ckvl_capture copy;
  ckvl_capture_init(&copy, from->api);
  const ckv_status status = copy_layers(&copy, from, error);
  if (status) {
    ckvl_capture_free(&copy);
    return status;
  }
  copy.has_one_mask = from->has_one_mask;
  copy.pins = from->pins;
  copy.seq = from->seq;
  copy.next = from->next;
  copy.rows = from->rows;
  copy.status = from->status;
  copy.reason = from->reason;
  ckvl_capture_free(to);
  *to = copy;
  return CKV_OK;
}

// The layer that the node attends to, new or known; NULL with the reason set if it cannot be used.
static ckvl_layer *find_layer(ckvl_capture *capture, const struct ggml_tensor *node) {
  ckvl_layer found;
  memset(&found, 0, sizeof found);
  capture->status =
      ckvl_attention_read(capture->api, &capture->caches, node, &found, &capture->reason);
  if (capture->status) return NULL;
  int32_t at = 0;
  while (at < capture->num_layers && capture->layers[at].index < found.index) at++;
  ckvl_layer *layer = &capture->layers[at];
  if (at < capture->num_layers && layer->index == found.index) {
    if (layer->keys == found.keys && layer->values == found.values &&
        layer->num_q_heads == found.num_q_heads && layer->key_dim == found.key_dim) {
      layer->node_first = found.node_first;
      layer->node_streams = found.node_streams;
      return layer;
    }
    capture->status =
        ckvl_fail(&capture->reason, CKV_ERROR_UNSUPPORTED,
                  "Expected one attention per layer but layer %d has two kinds", found.index);
    return NULL;
  }
  if (capture->num_layers == capture->capacity) {
    const int32_t capacity = capture->capacity ? 2 * capture->capacity : 32;
    ckvl_layer *grown = realloc(capture->layers, sizeof *grown * (size_t)capacity);
    if (!grown) {
      capture->status = ckvl_fail_memory(&capture->reason, sizeof *grown * (size_t)capacity);
      return NULL;
    }
    capture->layers = grown;
    capture->capacity = capacity;
  }
  const size_t bytes =
      sizeof(float) * CKVL_WINDOW * (size_t)found.num_q_heads * (size_t)found.key_dim;
  if (!ckvl_query_ring_new(capture, &found, bytes)) {
    capture->status = ckvl_fail_memory(&capture->reason, bytes);
    return NULL;
  }
  layer = &capture->layers[at];
  memmove(layer + 1, layer, sizeof *layer * (size_t)(capture->num_layers - at));
  found.next = capture->next;
  found.stream = found.streams > 1 ? capture->seq : 0;
  *layer = found;
  capture->num_layers++;
  return layer;
}

// What a node with `tokens` tokens shows of the run: how many, and the batch token after them.
static int32_t run_part(const ckvl_capture *capture, const ckvl_layer *layer, int32_t tokens,
                        int32_t *end) {
  const int32_t seen = layer->seen;
  if (layer->streams > 1) {
    const int32_t behind = layer->stream - layer->node_first;
    const int32_t part = behind >= 0 && behind < layer->node_streams ? tokens : 0;
    *end = seen + part;
    return part;
  }
  const int32_t begin = capture->run_begin > seen ? capture->run_begin : seen;
  *end = capture->run_end < seen + tokens ? capture->run_end : seen + tokens;
  return *end > begin ? *end - begin : 0;
}

// Rows that are wanted of a part of the run: always its newest.
static int32_t wanted_rows(const ckvl_capture *capture, const ckvl_layer *layer, int32_t part) {
  int64_t rows = (int64_t)layer->next + part - capture->from;
  if (rows > part) rows = part;
  return (int32_t)(rows > CKVL_WINDOW ? CKVL_WINDOW : rows);
}

// Appends the `rows` rows before row `end` of the node.
static void append_queries(const ckvl_capture *capture, ckvl_layer *layer,
                           const struct ggml_tensor *queries, int32_t rows, int64_t end) {
  const size_t row = (size_t)layer->num_q_heads * (size_t)layer->key_dim;
  const size_t head_bytes = sizeof(float) * (size_t)layer->key_dim;
  const bool packed = queries->nb[2] == head_bytes;
  int32_t kept = layer->rows + rows > CKVL_WINDOW ? CKVL_WINDOW - rows : layer->rows;
  memmove(layer->queries, layer->queries + row * (size_t)(layer->rows - kept),
          sizeof(float) * row * (size_t)kept);
  const size_t first = (size_t)(layer->stream - layer->node_first) * queries->nb[3];
  // One read from a GPU takes as long as many rows of it.
  if (packed && queries->nb[1] == sizeof(float) * row) {
    capture->api->ggml_backend_tensor_get(queries, layer->queries + row * (size_t)kept,
                                          first + (size_t)(end - rows) * queries->nb[1],
                                          sizeof(float) * row * (size_t)rows);
    layer->rows = kept + rows;
    return;
  }
  for (int64_t t = end - rows; t < end; t++, kept++) {
    float *to = layer->queries + row * (size_t)kept;
    const size_t from = first + (size_t)t * queries->nb[1];
    if (packed) {
      capture->api->ggml_backend_tensor_get(queries, to, from, sizeof(float) * row);
      continue;
    }
    for (int32_t h = 0; h < layer->num_q_heads; h++) {
      capture->api->ggml_backend_tensor_get(queries, to + (size_t)h * (size_t)layer->key_dim,
                                            from + (size_t)h * queries->nb[2], head_bytes);
    }
  }
  layer->rows = kept;
}

// Notes the cache of a layer that tokens are written to: where another backend computes the layer's
// attention, that reads a copy.
static void note_cache(ckvl_capture *capture, const struct ggml_tensor *node) {
  bool is_keys;
  struct ggml_tensor *base;
  const int32_t index = ckvl_cache_written(node, &base, &is_keys);
  if (index < 0) return;
  ckvl_caches *caches = &capture->caches;
  if (index >= caches->count) {
    ckvl_cache *grown = realloc(caches->data, sizeof *grown * ((size_t)index + 1));
    if (!grown) return;  // refused when the copy is met
    memset(grown + caches->count, 0, sizeof *grown * (size_t)(index + 1 - caches->count));
    caches->data = grown;
    caches->count = index + 1;
  }
  *(is_keys ? &caches->data[index].keys : &caches->data[index].values) = base;
}

bool ckvl_capture_node(struct ggml_tensor *node, bool ask, void *user_data) {
  ckvl_capture *capture = user_data;
  if (ask && node->op == capture->api->set_rows) note_cache(capture, node);
  if (node->op != capture->api->flash_attention || capture->status) return !ask;
  if (!ask && !capture->wants) return true;
  capture->wants = false;
  ckvl_layer *layer = find_layer(capture, node);
  if (!layer) return !ask;
  const int32_t tokens = (int32_t)node->src[0]->ne[1];
  int32_t end;
  const int32_t part = run_part(capture, layer, tokens, &end);
  int32_t rows = part > 0 ? wanted_rows(capture, layer, part) : 0;
  if (rows > 0 && capture->is_open && !ckvl_is_host(capture->api, layer->keys)) {
    capture->skipped = true;
    rows = 0;
  }
  if (ask && rows > 0) {
    capture->wants = true;
    return true;
  }
  const int32_t row = end - layer->seen;
  layer->next += part;
  layer->seen += layer->streams > 1 ? part : tokens;
  if (rows > 0) {
    append_queries(capture, layer, node->src[0], rows, row);
    capture->status = ckvl_capture_mask(capture, layer, node->src[3], row - 1);
  }
  return !ask;
}

void ckvl_capture_rewind(ckvl_capture *capture, llama_pos next) {
  const llama_pos removed = capture->next - next;
  if (removed >= capture->rows) {
    ckvl_capture_forget(capture);
    return;
  }
  ckvl_capture_forget_cells(capture);
  if (removed <= 0) return;
  capture->next = next;
  capture->rows -= removed;
  for (int32_t l = 0; l < capture->num_layers; l++) capture->layers[l].rows -= removed;
}

void ckvl_capture_begin(ckvl_capture *capture, const ckvl_run *run, llama_pos from) {
  if (capture->next != run->first) ckvl_capture_forget(capture);
  // Only the newest rows are kept anyway.
  const llama_pos newest = run->first + (run->end - run->begin) - CKVL_WINDOW;
  capture->from = from > newest ? from : newest;
  capture->next = run->first;
  capture->seq = run->seq;
  capture->run_begin = run->begin;
  capture->run_end = run->end;
  capture->batch_tokens = run->batch_tokens;
  capture->is_open = run->is_open;
  capture->skipped = false;
  capture->wants = false;
  capture->status = CKV_OK;
  for (int32_t l = 0; l < capture->num_layers; l++) {
    capture->layers[l].next = run->first;
    capture->layers[l].seen = 0;
  }
}

void ckvl_capture_end(ckvl_capture *capture, llama_pos next, bool decoded) {
  const bool complete = decoded && !capture->skipped;
  for (int32_t l = 0; l < capture->num_layers && !capture->status && complete; l++) {
    const ckvl_layer *layer = &capture->layers[l];
    // More rows than tokens: several layers attend to one layer's cache. Fewer: only some tokens.
    const int32_t expected =
        layer->streams > 1 ? capture->run_end - capture->run_begin : capture->batch_tokens;
    if (layer->next != next || layer->seen != expected || layer->rows != capture->layers[0].rows) {
      capture->status = ckvl_fail(&capture->reason, CKV_ERROR_UNSUPPORTED,
                                  "Expected one query per token and layer but layer %d has %s",
                                  layer->index, layer->seen > expected ? "more" : "fewer");
    }
  }
  if (!complete || capture->status) {
    ckvl_capture_forget(capture);
    return;
  }
  capture->next = next;
  capture->rows = capture->num_layers ? capture->layers[0].rows : 0;
  capture->has_cells = capture->rows > 0;
}
