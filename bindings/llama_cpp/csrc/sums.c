#include "sums.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "capture.h"

void ckvl_sums_free(ckvl_sums *sums) {
  for (int32_t l = 0; l < sums->num_layers; l++) free(sums->layers[l].data);
  free(sums->layers);
  *sums = (ckvl_sums){0};
}

void ckvl_sums_reset(ckvl_sums *sums) { ckvl_sums_free(sums); }

void ckvl_sums_void(ckvl_sums *sums, const char *reason) {
  if (sums->status) return;
  ckvl_sums_free(sums);
  sums->status = ckvl_fail(&sums->reason, CKV_ERROR_INVALID_ARGUMENT,
                           "Expected the attention of all queries since the sequence was empty but "
                           "%s",
                           reason);
}

ckv_status ckvl_sums_copy(const ckvl_sums *from, ckvl_sums *to, ckvl_error *error) {
  ckvl_sums copy = {.status = from->status, .reason = from->reason};
  for (int32_t l = 0; l < from->num_layers; l++) {
    ckvl_sums_layer *layer;
    const ckvl_sums_layer *source = &from->layers[l];
    ckv_status status = ckvl_sums_add(&copy, source->index, source->heads, &layer, error);
    if (!status && l == 0) status = ckvl_sums_extend(&copy, from->tokens, error);
    if (status) {
      ckvl_sums_free(&copy);
      return status;
    }
    for (int32_t h = 0; h < layer->heads && from->tokens > 0; h++) {
      memcpy(layer->data + (size_t)h * (size_t)copy.capacity,
             source->data + (size_t)h * (size_t)from->capacity,
             sizeof(double) * (size_t)from->tokens);
    }
  }
  copy.tokens = from->tokens;
  ckvl_sums_free(to);
  *to = copy;
  return CKV_OK;
}

ckv_status ckvl_sums_extend(ckvl_sums *sums, int32_t tokens, ckvl_error *error) {
  if (tokens > sums->capacity) {
    const int32_t capacity = tokens + tokens / 2;
    for (int32_t l = 0; l < sums->num_layers; l++) {
      ckvl_sums_layer *layer = &sums->layers[l];
      double *grown = calloc((size_t)layer->heads * (size_t)capacity, sizeof *grown);
      if (!grown) {
        // Layers of two sizes are of no use.
        ckvl_sums_void(sums, "memory for it was missing");
        return ckvl_fail_memory(error, sizeof *grown * (size_t)layer->heads * (size_t)capacity);
      }
      for (int32_t h = 0; h < layer->heads && sums->tokens > 0; h++) {
        memcpy(grown + (size_t)h * (size_t)capacity,
               layer->data + (size_t)h * (size_t)sums->capacity,
               sizeof *grown * (size_t)sums->tokens);
      }
      free(layer->data);
      layer->data = grown;
    }
    sums->capacity = capacity;
  }
  for (int32_t l = 0; l < sums->num_layers; l++) {
    for (int32_t h = 0; h < sums->layers[l].heads; h++) {
      double *row = sums->layers[l].data + (size_t)h * (size_t)sums->capacity;
      for (int32_t t = sums->tokens; t < tokens; t++) row[t] = 0;
    }
  }
  sums->tokens = tokens;
  return CKV_OK;
}

ckvl_sums_layer *ckvl_sums_find(const ckvl_sums *sums, int32_t index) {
  for (int32_t l = 0; l < sums->num_layers; l++) {
    if (sums->layers[l].index == index) return &sums->layers[l];
  }
  return NULL;
}

ckv_status ckvl_sums_add(ckvl_sums *sums, int32_t index, int32_t heads, ckvl_sums_layer **layer,
                         ckvl_error *error) {
  const size_t count = (size_t)sums->num_layers + 1;
  ckvl_sums_layer *grown = realloc(sums->layers, sizeof *grown * count);
  if (!grown) return ckvl_fail_memory(error, sizeof *grown * count);
  sums->layers = grown;
  const size_t floats = (size_t)heads * (size_t)sums->capacity;
  double *data = calloc(floats + 1, sizeof *data);
  if (!data) return ckvl_fail_memory(error, sizeof *data * floats);
  int32_t at = sums->num_layers;
  while (at > 0 && grown[at - 1].index > index) at--;
  memmove(&grown[at + 1], &grown[at], sizeof *grown * (size_t)(sums->num_layers - at));
  grown[at] = (ckvl_sums_layer){.index = index, .heads = heads, .data = data};
  sums->num_layers++;
  *layer = &grown[at];
  return CKV_OK;
}

void ckvl_sums_remove(ckvl_sums *sums, int32_t index) {
  ckvl_sums_layer *layer = ckvl_sums_find(sums, index);
  if (!layer) return;
  free(layer->data);
  sums->num_layers--;
  memmove(layer, layer + 1, sizeof *layer * (size_t)(sums->layers + sums->num_layers - layer));
}

// Token t of a set goes to place t, those of the tail to the last places; see kept.h.
static void gather_head(double *row, const ckvl_kept *kept, int32_t l, const int32_t *set,
                        int32_t tail) {
  const int32_t first = kept->lens[l] - tail, end = kept->len - tail;
  for (int32_t i = 0; i < first; i++) row[i] = row[set[i]];
  for (int32_t i = 0; i < tail; i++) row[end + i] = row[set[first + i]];
  for (int32_t i = first; i < end; i++) row[i] = 0;
}

void ckvl_sums_gather(ckvl_sums *sums, const ckvl_kept *kept, int32_t n) {
  if (sums->status) return;
  const int32_t tail = ckvl_kept_tail(kept, n);
  for (int32_t l = 0; l < kept->num_layers; l++) {
    const ckvl_sums_layer *layer = ckvl_sums_find(sums, kept->layer[l]);
    for (int32_t h = 0; layer && h < layer->heads; h++) {
      const size_t set = kept->heads[l] > 1 ? (size_t)h * (size_t)kept->capacity : 0;
      gather_head(layer->data + (size_t)h * (size_t)sums->capacity, kept, l,
                  ckvl_kept_indices(kept, l) + set, tail);
    }
  }
  sums->tokens = kept->len;
}

typedef struct {
  uint32_t magic;
  int32_t tokens, layers, reserved;
} header;

size_t ckvl_sums_bytes(const ckvl_sums *sums) {
  size_t bytes = sizeof(header);
  for (int32_t l = 0; l < sums->num_layers; l++) {
    bytes +=
        2 * sizeof(int32_t) + sizeof(double) * (size_t)sums->layers[l].heads * (size_t)sums->tokens;
  }
  return bytes;
}

void ckvl_sums_write(const ckvl_sums *sums, uint8_t *data) {
  const header head = {CKVL_SUMS_MAGIC, sums->tokens, sums->num_layers, 0};
  memcpy(data, &head, sizeof head);
  data += sizeof head;
  for (int32_t l = 0; l < sums->num_layers; l++) {
    const ckvl_sums_layer *layer = &sums->layers[l];
    const int32_t about[] = {layer->index, layer->heads};
    memcpy(data, about, sizeof about);
    data += sizeof about;
    const size_t row = sizeof(double) * (size_t)sums->tokens;
    for (int32_t h = 0; h < layer->heads && row > 0; h++, data += row) {
      memcpy(data, layer->data + (size_t)h * (size_t)sums->capacity, row);
    }
  }
}

static ckv_status fail_read(ckvl_sums *read, ckvl_error *error, const char *found) {
  ckvl_sums_free(read);
  return ckvl_fail(error, CKV_ERROR_INVALID_ARGUMENT,
                   "Expected what saving this sequence's attention gave but found %s", found);
}

ckv_status ckvl_sums_read(ckvl_sums *sums, const uint8_t *data, size_t size, int32_t tokens,
                          ckvl_error *error) {
  header head;
  ckvl_sums read = {0};
  if (size < sizeof head) return fail_read(&read, error, "too few bytes");
  memcpy(&head, data, sizeof head);
  size_t at = sizeof head;
  if (head.magic != CKVL_SUMS_MAGIC || head.layers < 0 || head.layers > CKVL_MAX_LAYERS) {
    return fail_read(&read, error, "other bytes");
  }
  if (head.tokens != tokens) return fail_read(&read, error, "that of another number of tokens");
  const size_t row = sizeof(double) * (size_t)tokens;
  for (int32_t l = 0; l < head.layers; l++) {
    int32_t about[2];
    if (size - at < sizeof about) return fail_read(&read, error, "too few bytes");
    memcpy(about, data + at, sizeof about);
    at += sizeof about;
    const bool rises = l == 0 || about[0] > read.layers[l - 1].index;
    if (about[0] < 0 || !rises || about[1] < 1) return fail_read(&read, error, "other bytes");
    if (row > 0 && (size_t)about[1] > (size - at) / row) {
      return fail_read(&read, error, "too few bytes");
    }
    ckvl_sums_layer *layer;
    ckv_status status = ckvl_sums_add(&read, about[0], about[1], &layer, error);
    if (!status && l == 0) status = ckvl_sums_extend(&read, tokens, error);
    if (status) {
      ckvl_sums_free(&read);
      return status;
    }
    for (int32_t h = 0; h < about[1] && row > 0; h++, at += row) {
      memcpy(layer->data + (size_t)h * (size_t)read.capacity, data + at, row);
    }
  }
  if (at != size) return fail_read(&read, error, "too many bytes");
  read.tokens = tokens;
  ckvl_sums_free(sums);
  *sums = read;
  return CKV_OK;
}
