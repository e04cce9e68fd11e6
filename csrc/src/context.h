// What a ckv_context holds, and what every stage needs from it.
#ifndef CKV_CONTEXT_H
#define CKV_CONTEXT_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../include/chunkkv.h"
#include "threads.h"

// One growing block of scratch memory per purpose: no allocation in the steady state.
typedef struct ckv_scratch {
  void *data;
  size_t bytes;
} ckv_scratch;

typedef enum ckv_scratch_slot {
  CKV_SCRATCH_MASS,     // f32 attention mass [batch, kv heads, kv_len]
  CKV_SCRATCH_SUMS,     // f64 attention mass summed over blocks of queries
  CKV_SCRATCH_SCORE,    // the score kernels' own
  CKV_SCRATCH_SELECT,   // chunk scores and order
  CKV_SCRATCH_COMPACT,  // row offsets
  CKV_SCRATCH_LAYERS,   // calls for all layers
  CKV_SCRATCH_COUNT,
} ckv_scratch_slot;

struct ckv_context {
  atomic_flag busy;
  int32_t isa;            // ckv_isa, resolved
  int32_t device;         // ckv_device
  struct ckv_cuda *cuda;  // NULL on the CPU
  ckv_thread_pool *pool;
  ckv_scratch scratch[CKV_SCRATCH_COUNT];
  char error[512];
};

// Writes the error text and returns `status`. Style: what was expected and what was found.
ckv_status ckv_fail(ckv_context *ctx, ckv_status status, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

// At least `bytes` bytes, 64-byte aligned, contents undefined; NULL (with the error text set) when
// memory is out. Valid until the slot is asked for more.
void *ckv_scratch_get(ckv_context *ctx, ckv_scratch_slot slot, size_t bytes);

#endif
