#include "dispatch.h"

#include <stddef.h>

#include "../include/chunkkv.h"
#include "cpu.h"

typedef struct isa_info {
  const char *name;
  bool (*probe)(void);
} isa_info;

static const isa_info isas[] = {
#define CKV_ISA_ENTRY(id, name, probe) [CKV_ISA_##id] = {name, probe},
#include "kernels.def"
};

enum {
  ISA_COUNT = sizeof isas / sizeof isas[0],
#define CKV_DTYPE_ENTRY(id, name, block_elements, block_bytes) DTYPE_##id,
#include "kernels.def"
  DTYPE_COUNT,
};

#define CKV_SCORE_ENTRY(isa, kernels) extern const ckv_score_rows kernels;
#define CKV_SCORE_TILE_ENTRY(isa, dtype, tile) void tile(const ckv_score_tile *);
#define CKV_SCORE_PAIRS_ENTRY(isa, dtype, tile) void tile(const ckv_score_tile *);
#include "kernels.def"

static const ckv_score_rows *const score_rows[ISA_COUNT] = {
    [CKV_ISA_SERIAL] = NULL,
#define CKV_SCORE_ENTRY(isa, kernels) [CKV_ISA_##isa] = &kernels,
#include "kernels.def"
};

static const ckv_score_tile_fn score_tiles[ISA_COUNT][DTYPE_COUNT] = {
    [CKV_ISA_SERIAL] = {NULL},
#define CKV_SCORE_TILE_ENTRY(isa, dtype, tile) [CKV_ISA_##isa][CKV_##dtype] = tile,
#include "kernels.def"
};

static const ckv_score_tile_fn score_pairs[ISA_COUNT][DTYPE_COUNT] = {
    [CKV_ISA_SERIAL] = {NULL},
#define CKV_SCORE_PAIRS_ENTRY(isa, dtype, tile) [CKV_ISA_##isa][CKV_##dtype] = tile,
#include "kernels.def"
};

const char *ckv_isa_name(int32_t isa) {
  return isa >= 0 && isa < ISA_COUNT ? isas[isa].name : NULL;
}

int32_t ckv_isa_usable(int32_t isa) {
  if (isa < 0 || isa >= ISA_COUNT) return 0;
  return (isa == CKV_ISA_SERIAL || score_rows[isa]) && isas[isa].probe();
}

int32_t ckv_isa_best(void) {
  for (int32_t isa = ISA_COUNT - 1; isa > CKV_ISA_SERIAL; isa--) {
    if (ckv_isa_usable(isa)) return isa;
  }
  return CKV_ISA_SERIAL;
}

ckv_score_kernels ckv_score_kernels_for(int32_t isa, int32_t key_dtype, int32_t query_dtype) {
  const ckv_score_tile_fn pairs = query_dtype == CKV_BF16 ? score_pairs[isa][key_dtype] : NULL;
  return (ckv_score_kernels){
      .rows = score_rows[isa],
      .tile = pairs ? pairs : score_tiles[isa][key_dtype],
      .pairs = pairs != NULL,
  };
}
