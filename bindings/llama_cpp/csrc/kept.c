#include "kept.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

ckv_status ckvl_kept_init(ckvl_kept *kept, int32_t num_layers, int32_t max_heads, int32_t capacity,
                          ckvl_error *error) {
  const size_t layers = (size_t)num_layers;
  const size_t bytes = sizeof(int32_t) * layers * (size_t)max_heads * (size_t)capacity;
  *kept = (ckvl_kept){.num_layers = num_layers, .max_heads = max_heads, .capacity = capacity};
  kept->layer = calloc(layers + 1, sizeof(int32_t));
  kept->heads = calloc(layers + 1, sizeof(int32_t));
  kept->lens = calloc(layers + 1, sizeof(int32_t));
  kept->indices = malloc(bytes + 1);
  if (kept->layer && kept->heads && kept->lens && kept->indices) return CKV_OK;
  ckvl_kept_free(kept);
  return ckvl_fail_memory(error, bytes);
}

void ckvl_kept_free(ckvl_kept *kept) {
  free(kept->layer);
  free(kept->heads);
  free(kept->lens);
  free(kept->indices);
  *kept = (ckvl_kept){0};
}

int32_t *ckvl_kept_indices(const ckvl_kept *kept, int32_t layer) {
  return kept->indices + (size_t)layer * (size_t)kept->max_heads * (size_t)kept->capacity;
}

static void lengthen(int32_t *indices, int32_t len, int32_t target, int32_t n, bool *chosen) {
  memset(chosen, 0, sizeof *chosen * (size_t)n);
  for (int32_t i = 0; i < len; i++) chosen[indices[i]] = true;
  for (int32_t t = n - 1; t >= 0 && len < target; t--) {
    len += !chosen[t];
    chosen[t] = true;
  }
  for (int32_t t = 0, i = 0; t < n; t++) {
    if (chosen[t]) indices[i++] = t;
  }
}

void ckvl_kept_measure(ckvl_kept *kept) {
  kept->len = 0;
  for (int32_t l = 0; l < kept->num_layers; l++) {
    if (kept->lens[l] > kept->len) kept->len = kept->lens[l];
  }
}

ckv_status ckvl_kept_level(ckvl_kept *kept, int32_t n, ckvl_error *error) {
  bool level = true;
  ckvl_kept_measure(kept);
  for (int32_t l = 0; l < kept->num_layers; l++) level = level && kept->lens[l] == kept->len;
  if (level) return CKV_OK;
  bool *chosen = malloc(sizeof *chosen * (size_t)n);
  if (!chosen) return ckvl_fail_memory(error, sizeof *chosen * (size_t)n);
  for (int32_t l = 0; l < kept->num_layers; l++) {
    for (int32_t h = 0; h < kept->heads[l] && kept->lens[l] < kept->len; h++) {
      int32_t *indices = ckvl_kept_indices(kept, l) + (size_t)h * (size_t)kept->capacity;
      lengthen(indices, kept->lens[l], kept->len, n, chosen);
    }
    kept->lens[l] = kept->len;
  }
  free(chosen);
  return CKV_OK;
}

int32_t ckvl_kept_tail(const ckvl_kept *kept, int32_t n) {
  int32_t tail = kept->len;
  for (int32_t l = 0; l < kept->num_layers; l++) {
    if (kept->lens[l] < tail) tail = kept->lens[l];
    for (int32_t h = 0; h < kept->heads[l]; h++) {
      const int32_t *end =
          ckvl_kept_indices(kept, l) + (size_t)h * (size_t)kept->capacity + kept->lens[l];
      int32_t common = 0;
      while (common < tail && end[-1 - common] == n - 1 - common) common++;
      tail = common;
    }
  }
  return tail;
}

int32_t ckvl_kept_oldest(const ckvl_kept *kept, int32_t place, int32_t tail) {
  int32_t oldest = INT32_MAX;
  for (int32_t l = 0; l < kept->num_layers; l++) {
    const bool in_tail = place >= kept->len - tail;
    if (!in_tail && place >= kept->lens[l] - tail) continue;
    const int32_t at = in_tail ? place - (kept->len - kept->lens[l]) : place;
    const int32_t *indices = ckvl_kept_indices(kept, l) + at;
    for (int32_t h = 0; h < kept->heads[l]; h++, indices += kept->capacity) {
      if (*indices < oldest) oldest = *indices;
    }
  }
  return oldest;
}

ckv_status ckvl_kept_check(const ckvl_kept *kept, int32_t n, ckvl_error *error) {
  if (kept->len < 1 || kept->len > n || kept->len > kept->capacity) {
    return ckvl_fail(error, CKV_ERROR_INVALID_ARGUMENT,
                     "Expected 1 to %d kept tokens per layer but found %d", n, kept->len);
  }
  for (int32_t l = 0; l < kept->num_layers; l++) {
    for (int32_t h = 0; h < kept->heads[l]; h++) {
      const int32_t *indices = ckvl_kept_indices(kept, l) + (size_t)h * (size_t)kept->capacity;
      for (int32_t i = 0, previous = -1; i < kept->lens[l]; previous = indices[i++]) {
        if (indices[i] > previous && indices[i] < n) continue;
        return ckvl_fail(
            error, CKV_ERROR_INVALID_ARGUMENT,
            "Expected the kept indices of layer %d to rise inside 0 to %d but found %d "
            "after %d",
            kept->layer[l], n - 1, indices[i], previous);
      }
      if (kept->lens[l] < 1 || indices[kept->lens[l] - 1] != n - 1) {
        return ckvl_fail(error, CKV_ERROR_INVALID_ARGUMENT,
                         "Expected layer %d to keep the newest token, %d, but found %d as its last",
                         kept->layer[l], n - 1,
                         kept->lens[l] < 1 ? -1 : indices[kept->lens[l] - 1]);
      }
    }
  }
  return CKV_OK;
}
