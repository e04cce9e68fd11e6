// What this CPU runs: one probe for each line of the ISA list.
#ifndef CKV_CPU_H
#define CKV_CPU_H

#include <stdbool.h>

bool ckv_cpu_any(void);
bool ckv_cpu_avx2(void);         // AVX2, FMA, F16C, and an OS that saves ymm
bool ckv_cpu_avx512(void);       // F, BW, DQ, VL on top, and an OS that saves zmm
bool ckv_cpu_avx512_bf16(void);  // AVX512_BF16 on top
bool ckv_cpu_neon(void);
bool ckv_cpu_neon_bf16(void);  // BFDOT

#endif
