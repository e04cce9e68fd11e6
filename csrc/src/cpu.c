#include "cpu.h"

#include <stdint.h>

#include "arch.h"

bool ckv_cpu_any(void) { return true; }

#if CKV_X86_64
#  include <cpuid.h>

// cpuid and xgetbv by hand: the compilers' own probes need runtime support that not all have.
typedef struct registers {
  uint32_t a, b, c, d;
} registers;

static registers leaf(uint32_t number, uint32_t sub) {
  registers r = {0, 0, 0, 0};
  if (!__get_cpuid_count(number, sub, &r.a, &r.b, &r.c, &r.d)) r = (registers){0, 0, 0, 0};
  return r;
}

static bool has(uint32_t bits, uint32_t wanted) { return (bits & wanted) == wanted; }

static bool os_saves(uint32_t wanted) {
  if (!has(leaf(1, 0).c, bit_OSXSAVE)) return false;
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return has(low, wanted);
}

bool ckv_cpu_avx2(void) {
  return os_saves(0x6) && has(leaf(1, 0).c, bit_AVX | bit_FMA | bit_F16C) &&
         has(leaf(7, 0).b, bit_AVX2);
}

bool ckv_cpu_avx512(void) {
  return ckv_cpu_avx2() && os_saves(0xe6) &&
         has(leaf(7, 0).b, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL);
}

bool ckv_cpu_avx512_bf16(void) { return ckv_cpu_avx512() && has(leaf(7, 1).a, 1u << 5); }
#else
bool ckv_cpu_avx2(void) { return false; }
bool ckv_cpu_avx512(void) { return false; }
bool ckv_cpu_avx512_bf16(void) { return false; }
#endif

#if CKV_ARM64
#  if defined(__linux__)
#    include <sys/auxv.h>
#  elif defined(__APPLE__)
#    include <stddef.h>
#    include <sys/sysctl.h>
#  endif

bool ckv_cpu_neon(void) { return true; }  // part of the base architecture

bool ckv_cpu_neon_bf16(void) {
#  if defined(__linux__)
  return (getauxval(AT_HWCAP2) & (1ul << 14)) != 0;  // HWCAP2_BF16
#  elif defined(__APPLE__)
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname("hw.optional.arm.FEAT_BF16", &value, &size, NULL, 0) == 0 && value != 0;
#  else
  return false;
#  endif
}
#else
bool ckv_cpu_neon(void) { return false; }
bool ckv_cpu_neon_bf16(void) { return false; }
#endif
