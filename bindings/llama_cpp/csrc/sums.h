// Attention that each cached token of a sequence has got from all queries so far, layer by layer:
// what h2o chooses by.
#ifndef CKVL_SUMS_H
#define CKVL_SUMS_H

#include "kept.h"

typedef struct ckvl_sums_layer {
  int32_t index;  // N of cache_k_l<N>
  int32_t heads;  // kv heads
  double *data;   // [heads][capacity], tokens by rising position
} ckvl_sums_layer;

// 8 bytes per token, kv head and layer.
typedef struct ckvl_sums {
  ckvl_sums_layer *layers;  // by rising index; those with sliding windows have none
  int32_t num_layers;
  int32_t tokens, capacity;
  ckv_status status;  // why they cannot be used, in `reason`
  ckvl_error reason;
} ckvl_sums;

void ckvl_sums_free(ckvl_sums *sums);

// Those of an empty sequence.
void ckvl_sums_reset(ckvl_sums *sums);

// They are of no use any more until a reset: `reason` completes "but ".
void ckvl_sums_void(ckvl_sums *sums, const char *reason);

ckv_status ckvl_sums_copy(const ckvl_sums *from, ckvl_sums *to, ckvl_error *error);

// Makes room for as many tokens; new ones have got nothing.
ckv_status ckvl_sums_extend(ckvl_sums *sums, int32_t tokens, ckvl_error *error);

// The layer with this number, NULL if there is none.
ckvl_sums_layer *ckvl_sums_find(const ckvl_sums *sums, int32_t index);

// Adds a layer, with room for as many tokens as the others, which have got nothing.
ckv_status ckvl_sums_add(ckvl_sums *sums, int32_t index, int32_t heads, ckvl_sums_layer **layer,
                         ckvl_error *error);

// A layer has none any more.
void ckvl_sums_remove(ckvl_sums *sums, int32_t index);

// What is left when each head of each layer has kept its tokens.
void ckvl_sums_gather(ckvl_sums *sums, const ckvl_kept *kept, int32_t n);

// As bytes, in host order: u32 magic, i32 tokens, i32 layers, i32 0, then of each layer i32 index,
// i32 heads and f64 [heads][tokens].
#define CKVL_SUMS_MAGIC 0x41564b43u  // "CKVA"

size_t ckvl_sums_bytes(const ckvl_sums *sums);
void ckvl_sums_write(const ckvl_sums *sums, uint8_t *data);

// *sums is replaced if the bytes are as above, with `tokens` tokens.
ckv_status ckvl_sums_read(ckvl_sums *sums, const uint8_t *data, size_t size, int32_t tokens,
                          ckvl_error *error);

#endif
