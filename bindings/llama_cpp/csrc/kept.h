// Kept token indices of every compacted layer. Layers share cells, so there are as many of these as
// the largest set needs. A layer that keeps fewer has them in the first cells and, those of the tail
// that all sets have, in the last; what lies between is hidden from it.
#ifndef CKVL_KEPT_H
#define CKVL_KEPT_H

#include "error.h"

typedef struct ckvl_kept {
  int32_t num_layers;
  int32_t max_heads;  // index sets that fit in a layer
  int32_t capacity;   // indices that fit in a set
  int32_t len;        // indices in each set; of the largest where layers differ
  int32_t *layer;     // [num_layers] N of cache_k_l<N>
  int32_t *heads;     // [num_layers] index sets of the layer: 1, or one per kv head
  int32_t *lens;      // [num_layers] indices in each set of the layer
  int32_t *indices;   // [num_layers][max_heads][capacity], rising
} ckvl_kept;

ckv_status ckvl_kept_init(ckvl_kept *kept, int32_t num_layers, int32_t max_heads, int32_t capacity,
                          ckvl_error *error);
void ckvl_kept_free(ckvl_kept *kept);

// The first index set of a layer.
int32_t *ckvl_kept_indices(const ckvl_kept *kept, int32_t layer);

// Sets `len` from `lens`.
void ckvl_kept_measure(ckvl_kept *kept);

// Gives every set the length of the longest: the shorter ones get the newest of the `n` tokens that
// they lack.
ckv_status ckvl_kept_level(ckvl_kept *kept, int32_t n, ckvl_error *error);

// The newest tokens of `n` that every set has: how many.
int32_t ckvl_kept_tail(const ckvl_kept *kept, int32_t n);

// The oldest token that a set has at `place` of `kept->len`; `tail` is ckvl_kept_tail. Taken as the cells' positions, these rise, and where
// they are unbroken up to the newest token all sets have the same tokens.
int32_t ckvl_kept_oldest(const ckvl_kept *kept, int32_t place, int32_t tail);

// Rising, inside 0 to n - 1, and with the newest token: the next one continues after it.
ckv_status ckvl_kept_check(const ckvl_kept *kept, int32_t n, ckvl_error *error);

#endif
