// What this machine can do at most, for `chunkkv kernels`: a library of its own, so that the limits
// are measured in the process and the minute of what is held against them. All return -1 if memory
// or threads are out.
#include "limits.h"
#include "alloc.h"
#include "limits_memory.h"
#include "limits_runs.h"

#define LIMITS_API CKV_API
#define LIMITS_ABI_VERSION 2

LIMITS_API uint32_t ckv_limits_abi_version(void);
LIMITS_API double ckv_limits_fma_gflops(int32_t threads, int32_t isa);
LIMITS_API double ckv_limits_dot_gflops(int32_t threads, int32_t isa);
LIMITS_API double ckv_limits_read_gbs(int32_t threads, int64_t bytes);
LIMITS_API double ckv_limits_copy_gbs(int32_t threads, int64_t bytes);
LIMITS_API double ckv_limits_runs_seconds(int32_t threads, const ckv_kv_view *views, int32_t count,
                                          const ckv_kept *kept, double seconds);

uint32_t ckv_limits_abi_version(void) { return LIMITS_ABI_VERSION; }

typedef double (*peak_of)(ckv_thread_pool *pool, int32_t isa);

static double peak(int32_t threads, int32_t isa, peak_of measure) {
  ckv_thread_pool *pool = ckv_thread_pool_create(threads);
  const double gflops = pool ? measure(pool, isa) : -1;
  ckv_thread_pool_free(pool);
  return gflops;
}

// The peak of the ISA's f32 FMA in GFLOP/s; 0 if it has none.
double ckv_limits_fma_gflops(int32_t threads, int32_t isa) {
  return peak(threads, isa, limits_fma_gflops);
}

// The peak of the ISA's bf16 dot product in GFLOP/s; 0 if it has none.
double ckv_limits_dot_gflops(int32_t threads, int32_t isa) {
  return peak(threads, isa, limits_dot_gflops);
}

// GB/s of reading `bytes` bytes of memory, larger than the caches.
double ckv_limits_read_gbs(int32_t threads, int64_t bytes) {
  ckv_thread_pool *pool = ckv_thread_pool_create(threads);
  char *data = ckv_alloc((size_t)bytes);
  double gbs = -1;
  if (pool && data) {
    memset(data, 1, (size_t)bytes);
    gbs = limits_read_gbs(pool, data, bytes);
  }
  ckv_free(data);
  ckv_thread_pool_free(pool);
  return gbs;
}

// GB/s of copying `bytes` bytes of memory to other memory, both counted.
double ckv_limits_copy_gbs(int32_t threads, int64_t bytes) {
  ckv_thread_pool *pool = ckv_thread_pool_create(threads);
  char *to = ckv_alloc((size_t)bytes), *from = ckv_alloc((size_t)bytes);
  double gbs = -1;
  if (pool && to && from) {
    memset(from, 1, (size_t)bytes);
    memset(to, 2, (size_t)bytes);
    gbs = limits_copy_gbs(pool, to, from, bytes);
  }
  ckv_free(to);
  ckv_free(from);
  ckv_thread_pool_free(pool);
  return gbs;
}

// Seconds of the plainest copy of the rows that compaction moves, keys and values of one layer;
// `views` are those of all layers, which take turns.
double ckv_limits_runs_seconds(int32_t threads, const ckv_kv_view *views, int32_t count,
                               const ckv_kept *kept, double seconds) {
  ckv_thread_pool *pool = ckv_thread_pool_create(threads);
  const double best = pool ? limits_runs_seconds(pool, views, count, kept, seconds) : -1;
  ckv_thread_pool_free(pool);
  return best;
}
