// Which instruction sets are built in and run here, and the kernels of each.
#ifndef CKV_DISPATCH_H
#define CKV_DISPATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "score/kernels.h"

// The most preferred ckv_isa that is built in and runs on this CPU. Serial runs everywhere.
int32_t ckv_isa_best(void);

// The score kernels of one ISA for one pair of dtypes.
typedef struct ckv_score_kernels {
  const ckv_score_rows *rows;  // NULL: serial, which has its own driver
  ckv_score_tile_fn tile;
  bool pairs;  // queries are packed as bf16 pairs
} ckv_score_kernels;

// The ISA is usable, the dtypes are known.
ckv_score_kernels ckv_score_kernels_for(int32_t isa, int32_t key_dtype, int32_t query_dtype);

#endif
