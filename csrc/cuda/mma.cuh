// The matrix instruction of all cards since sm_80: a warp multiplies 16 rows by 8 columns.
#ifndef CKV_MMA_CUH
#define CKV_MMA_CUH

#include "ptx.cuh"

__device__ inline void ckv_load_matrix(uint32_t (&out)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address));
}

// acc[4] += 16 rows by 8 columns over 16 elements. With g = lane / 4 and e = 2 (lane % 4):
// a: elements e, e + 1 of rows g and g + 8, then e + 8, e + 9 of them; b0: elements e, e + 1 of column g,
// b1: e + 8, e + 9; acc: columns e, e + 1 of row g, then of row g + 8.
#define CKV_MMA(type)                                                                 \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                 \
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])               \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
__device__ inline void ckv_mma(float *acc, const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                               __half) {
  CKV_MMA("f16");
}
__device__ inline void ckv_mma(float *acc, const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                               __nv_bfloat16) {
  CKV_MMA("bf16");
}

#endif
