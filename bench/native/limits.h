// What this machine can compute at most, measured: the yardstick of score. limits_memory.h has the
// rest.
#ifndef CKV_LIMITS_H
#define CKV_LIMITS_H

#include <stdint.h>
#include <string.h>
#include <time.h>

#include "arch.h"
#include "chunkkv.h"
#include "threads.h"

#if CKV_X86_64
#  include <immintrin.h>
#elif CKV_ARM64
#  include <arm_neon.h>
#endif

static inline double limits_now(void) {
  struct timespec now;
  timespec_get(&now, TIME_UTC);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

// The shortest of `runs` runs of `count` tasks, in seconds.
static inline double limits_shortest(ckv_thread_pool *pool, int runs, int64_t count, ckv_task task,
                                     void *arg) {
  double best = 1e30;
  for (int i = 0; i < runs; i++) {
    const double start = limits_now();
    ckv_parallel_for(pool, count, task, arg);
    const double seconds = limits_now() - start;
    if (seconds < best) best = seconds;
  }
  return best;
}

enum { LIMITS_ROUNDS = 1 << 18 };

typedef struct limits_job {
  int32_t isa;
  double sink[1024];
} limits_job;

// Read anew for each chain, so that no compiler joins two of them.
static volatile float limits_start = 1.0f;

// Independent chains hide the latency of an FMA: one FMA on each of 12, four times over.
#define LIMITS_STEP(FMA) \
  FMA(0) FMA(1) FMA(2) FMA(3) FMA(4) FMA(5) FMA(6) FMA(7) FMA(8) FMA(9) FMA(10) FMA(11)
#define LIMITS_CHAINS(FMA) LIMITS_STEP(FMA) LIMITS_STEP(FMA) LIMITS_STEP(FMA) LIMITS_STEP(FMA)

#if CKV_X86_64
__attribute__((target("avx2,fma"))) static inline double limits_fma_avx2(int32_t rounds) {
  __m256 x[12];
  for (int i = 0; i < 12; i++) x[i] = _mm256_set1_ps(limits_start);
  const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
  for (int32_t r = 0; r < rounds; r++) {
#  define LIMITS_FMA(i) x[i] = _mm256_fmadd_ps(x[i], a, b);
    LIMITS_CHAINS(LIMITS_FMA)
#  undef LIMITS_FMA
  }
  double sum = 0;
  for (int i = 0; i < 12; i++) sum += (double)_mm256_cvtss_f32(x[i]);
  return sum;
}

__attribute__((target("avx512f"))) static inline double limits_fma_avx512(int32_t rounds) {
  __m512 x[12];
  for (int i = 0; i < 12; i++) x[i] = _mm512_set1_ps(limits_start);
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
  for (int32_t r = 0; r < rounds; r++) {
#  define LIMITS_FMA(i) x[i] = _mm512_fmadd_ps(x[i], a, b);
    LIMITS_CHAINS(LIMITS_FMA)
#  undef LIMITS_FMA
  }
  double sum = 0;
  for (int i = 0; i < 12; i++) sum += (double)_mm512_cvtss_f32(x[i]);
  return sum;
}
#elif CKV_ARM64
static inline double limits_fma_neon(int32_t rounds) {
  float32x4_t x[12];
  for (int i = 0; i < 12; i++) x[i] = vdupq_n_f32(limits_start);
  const float32x4_t a = vdupq_n_f32(0.999f), b = vdupq_n_f32(0.001f);
  for (int32_t r = 0; r < rounds; r++) {
#  define LIMITS_FMA(i) x[i] = vfmaq_f32(b, x[i], a);
    LIMITS_CHAINS(LIMITS_FMA)
#  undef LIMITS_FMA
  }
  double sum = 0;
  for (int i = 0; i < 12; i++) sum += (double)vgetq_lane_f32(x[i], 0);
  return sum;
}
#endif

// Floating-point operations of one task; 0 if the ISA has none of these loops.
static inline double limits_flops(int32_t isa) {
  const double lanes = isa == CKV_ISA_AVX2                                   ? 8
                       : isa == CKV_ISA_AVX512 || isa == CKV_ISA_AVX512_BF16 ? 16
                       : isa == CKV_ISA_NEON || isa == CKV_ISA_NEON_BF16     ? 4
                                                                             : 0;
  return 2 * 48 * lanes * LIMITS_ROUNDS;
}

static inline void limits_fma_task(void *arg, int64_t index, int32_t thread) {
  limits_job *job = arg;
  (void)index;
#if CKV_X86_64
  if (job->isa == CKV_ISA_AVX2) job->sink[thread] += limits_fma_avx2(LIMITS_ROUNDS);
  if (job->isa == CKV_ISA_AVX512 || job->isa == CKV_ISA_AVX512_BF16) {
    job->sink[thread] += limits_fma_avx512(LIMITS_ROUNDS);
  }
#elif CKV_ARM64
  job->sink[thread] += limits_fma_neon(LIMITS_ROUNDS);
#else
  job->sink[thread] += 1;
#endif
}

// GFLOP/s of the ISA's FMA on all threads of the pool: the best of several short runs; 0 if it has
// none.
static inline double limits_fma_gflops(ckv_thread_pool *pool, int32_t isa) {
  limits_job job = {.isa = isa};
  const int32_t tasks = 4 * ckv_thread_pool_size(pool);
  if (limits_flops(isa) == 0) return 0;
  return limits_flops(isa) * tasks / limits_shortest(pool, 8, tasks, limits_fma_task, &job) * 1e-9;
}

// bf16 dot products: pairs of products added to f32, on 12 chains as the FMA has.
#if CKV_X86_64
__attribute__((target("avx512f,avx512bf16"))) static inline double limits_dot_chains(
    int32_t rounds) {
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

enum { LIMITS_DOT_FLOPS = 64, LIMITS_DOT_ISA = CKV_ISA_AVX512_BF16 };
#elif CKV_ARM64
__attribute__((target("bf16"))) static inline double limits_dot_chains(int32_t rounds) {
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

enum { LIMITS_DOT_FLOPS = 16, LIMITS_DOT_ISA = CKV_ISA_NEON_BF16 };
#else
static inline double limits_dot_chains(int32_t rounds) { return rounds; }

enum { LIMITS_DOT_FLOPS = 0, LIMITS_DOT_ISA = -1 };
#endif

static inline void limits_dot_task(void *arg, int64_t index, int32_t thread) {
  limits_job *job = arg;
  (void)index;
  job->sink[thread] += limits_dot_chains(LIMITS_ROUNDS);
}

// The same of the ISA's bf16 dot product. The caller has asked ckv_isa_usable.
static inline double limits_dot_gflops(ckv_thread_pool *pool, int32_t isa) {
  limits_job job = {.isa = isa};
  const int32_t tasks = 4 * ckv_thread_pool_size(pool);
  if (isa != LIMITS_DOT_ISA) return 0;
  const double flops = 48.0 * LIMITS_DOT_FLOPS * LIMITS_ROUNDS * tasks;
  return flops / limits_shortest(pool, 8, tasks, limits_dot_task, &job) * 1e-9;
}

#endif
