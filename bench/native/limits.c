// What this machine can do at most, for `chunkkv kernels`: a library of its own, so that the limits
// are measured in the process and the minute of what is held against them.
#include <stdlib.h>

#include "alloc.h"
#include "limits.h"
#include "limits_copy.h"

#define LIMITS_API CKV_API
#define LIMITS_ABI_VERSION 1
#define PIECE ((int64_t)1 << 20)

LIMITS_API uint32_t ckv_limits_abi_version(void);
LIMITS_API double ckv_limits_fma_gflops(int32_t threads, int32_t isa);
LIMITS_API double ckv_limits_dot_gflops(int32_t threads, int32_t isa);
LIMITS_API double ckv_limits_read_gbs(int32_t threads, int64_t bytes);
LIMITS_API double ckv_limits_copy_gbs(int32_t threads, int64_t bytes);

uint32_t ckv_limits_abi_version(void) { return LIMITS_ABI_VERSION; }

// The peak of the ISA's f32 FMA in GFLOP/s; 0 if it has none, -1 if memory or threads are out.
double ckv_limits_fma_gflops(int32_t threads, int32_t isa) {
  if (limits_flops(isa) == 0) return 0;
  ckv_thread_pool *pool = ckv_thread_pool_create(threads);
  if (!pool) return -1;
  const double gflops = limits_fma_gflops(pool, isa);
  ckv_thread_pool_free(pool);
  return gflops;
}

// bf16 dot products: pairs of products added to f32, on 12 chains as the FMA has.
#if CKV_X86_64
__attribute__((target("avx512f,avx512bf16"))) static double dot_chains(int32_t rounds) {
  __m512 x[12];
  const __m512 ones = _mm512_set1_ps(limits_start);
  for (int i = 0; i < 12; i++) x[i] = ones;
  const __m512bh a = _mm512_cvtne2ps_pbh(ones, ones);
  for (int32_t r = 0; r < rounds; r++) {
#  define LIMITS_DOT(i) x[i] = _mm512_dpbf16_ps(x[i], a, a);
    LIMITS_CHAINS(LIMITS_DOT)
#  undef LIMITS_DOT
  }
  double sum = 0;
  for (int i = 0; i < 12; i++) sum += (double)_mm512_cvtss_f32(x[i]);
  return sum;
}

enum { DOT_FLOPS = 64, DOT_ISA = CKV_ISA_AVX512_BF16 };
#elif CKV_ARM64
__attribute__((target("bf16"))) static double dot_chains(int32_t rounds) {
  float32x4_t x[12];
  for (int i = 0; i < 12; i++) x[i] = vdupq_n_f32(limits_start);
  const bfloat16x8_t a = vreinterpretq_bf16_u16(vdupq_n_u16(0x3f80));
  for (int32_t r = 0; r < rounds; r++) {
#  define LIMITS_DOT(i) x[i] = vbfdotq_f32(x[i], a, a);
    LIMITS_CHAINS(LIMITS_DOT)
#  undef LIMITS_DOT
  }
  double sum = 0;
  for (int i = 0; i < 12; i++) sum += (double)vgetq_lane_f32(x[i], 0);
  return sum;
}

enum { DOT_FLOPS = 16, DOT_ISA = CKV_ISA_NEON_BF16 };
#else
static double dot_chains(int32_t rounds) { return rounds; }

enum { DOT_FLOPS = 0, DOT_ISA = -1 };
#endif

static void dot_task(void *arg, int64_t index, int32_t thread) {
  (void)index;
  ((double *)arg)[thread] += dot_chains(LIMITS_ROUNDS);
}

// The shortest of `runs` runs of `count` tasks, in seconds.
static double shortest(ckv_thread_pool *pool, int runs, int64_t count, ckv_task task, void *arg) {
  double best = 1e30;
  for (int i = 0; i < runs; i++) {
    const double start = limits_now();
    ckv_parallel_for(pool, count, task, arg);
    const double seconds = limits_now() - start;
    if (seconds < best) best = seconds;
  }
  return best;
}

// The peak of the ISA's bf16 dot product in GFLOP/s; 0 if it has none, -1 if memory is out. The
// caller has asked ckv_isa_usable.
double ckv_limits_dot_gflops(int32_t threads, int32_t isa) {
  if (isa != DOT_ISA) return 0;
  ckv_thread_pool *pool = ckv_thread_pool_create(threads);
  if (!pool) return -1;
  const int32_t tasks = 4 * ckv_thread_pool_size(pool);
  double *sink = calloc((size_t)ckv_thread_pool_size(pool), sizeof *sink);
  const double seconds = sink ? shortest(pool, 8, tasks, dot_task, sink) : 1;
  const double flops = 48.0 * DOT_FLOPS * LIMITS_ROUNDS * tasks;
  const double gflops = sink ? flops / seconds * 1e-9 : -1;
  free(sink);
  ckv_thread_pool_free(pool);
  return gflops;
}

typedef struct {
  char *to;
  const char *from;
  int64_t bytes, piece;
} copy_job;

static int64_t piece_bytes(const copy_job *job, int64_t index) {
  const int64_t left = job->bytes - index * job->piece;
  return left < job->piece ? left : job->piece;
}

// Reads with the next pages asked for, as compaction asks for its runs.
static void read_asked(void *arg, int64_t index, int32_t thread) {
  (void)thread;
  const copy_job *job = arg;
  uint64_t sum[8] = {0};
  ckv_run_group groups[2];
  const char *from = job->from + index * job->piece;
  limits_group(&groups[0], NULL, from, job->piece);
  for (int64_t at = groups[0].bytes, now = 0; groups[now].count > 0; now ^= 1) {
    limits_group(&groups[now ^ 1], NULL, from + at, job->piece - at);
    at += groups[now ^ 1].bytes;
    const char *end = groups[now].runs[0].from + groups[now].bytes;
    for (const char *line = groups[now].runs[0].from; line < end; line += CKV_LINE) {
      ckv_group_prefetch(&groups[now ^ 1]);
      uint64_t words[8];
      memcpy(words, line, sizeof words);
      for (int k = 0; k < 8; k++) sum[k] += words[k];
    }
  }
  volatile uint64_t kept = 0;  // or the compiler drops the reads
  for (int k = 0; k < 8; k++) kept += sum[k];
}

// GB/s of reading `bytes` bytes of memory, larger than the caches; -1 if memory is out.
double ckv_limits_read_gbs(int32_t threads, int64_t bytes) {
  ckv_thread_pool *pool = ckv_thread_pool_create(threads);
  char *data = ckv_alloc((size_t)bytes);
  double gbs = -1;
  if (pool && data) {
    memset(data, 1, (size_t)bytes);
    gbs = limits_read_gbs(pool, data, bytes);
    copy_job job = {.from = data, .bytes = bytes, .piece = PIECE};
    const double asked = (double)bytes / shortest(pool, 6, bytes / PIECE, read_asked, &job) * 1e-9;
    if (asked > gbs) gbs = asked;
  }
  ckv_free(data);
  ckv_thread_pool_free(pool);
  return gbs;
}

static void libc_copy(void *arg, int64_t index, int32_t thread) {
  (void)thread;
  const copy_job *job = arg;
  const int64_t at = index * job->piece;
  memcpy(job->to + at, job->from + at, (size_t)piece_bytes(job, index));
}

static void stream_copy(void *arg, int64_t index, int32_t thread) {
  (void)thread;
  const copy_job *job = arg;
  limits_copy(job->to + index * job->piece, job->from + index * job->piece,
              piece_bytes(job, index));
}

// GB/s of copying `bytes` bytes of memory to other memory, bytes read and bytes written both
// counted: the better of the C library's memcpy and of stores that bypass the caches. -1 if memory
// is out.
double ckv_limits_copy_gbs(int32_t threads, int64_t bytes) {
  ckv_thread_pool *pool = ckv_thread_pool_create(threads);
  copy_job job = {.to = ckv_alloc((size_t)bytes), .bytes = bytes, .piece = PIECE};
  char *from = ckv_alloc((size_t)bytes);
  job.from = from;
  double gbs = -1;
  if (pool && job.to && from) {
    memset(from, 1, (size_t)bytes);
    memset(job.to, 2, (size_t)bytes);
    double best = shortest(pool, 6, (bytes + PIECE - 1) / PIECE, stream_copy, &job);
    // In as few pieces as there are threads: memcpy bypasses the caches only for long ones.
    const int64_t size = ckv_thread_pool_size(pool);
    job.piece = (bytes + size - 1) / size;
    const double libc = shortest(pool, 6, size, libc_copy, &job);
    if (libc < best) best = libc;
    gbs = 2.0 * (double)bytes / best * 1e-9;
  }
  ckv_free(job.to);
  ckv_free(from);
  ckv_thread_pool_free(pool);
  return gbs;
}
