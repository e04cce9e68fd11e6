// Hopper's matrix instruction: a warpgroup multiplies two tiles of shared memory.
// Tiles are K-major: rows of 64 elements (128 bytes) whose 16-byte pieces are permuted by the row
// (128-byte swizzle); a tile of more than 64 columns is several such panels, one after the other or
// each eight rows of all panels together.
#ifndef CKV_WGMMA_CUH
#define CKV_WGMMA_CUH

#include "ptx.cuh"

// Byte offset of a 16-byte piece in a panel.
__device__ inline uint32_t ckv_swizzle(uint32_t row, uint32_t piece) {
  return row * 128 + ((piece ^ (row & 7)) << 4);
}

// `group_bytes`: from eight rows of a panel to the next eight.
__device__ inline uint64_t ckv_tile_descriptor(uint32_t address, uint32_t group_bytes = 1024) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | 1ull << 16 |
         static_cast<uint64_t>(group_bytes >> 4) << 32 | 1ull << 62;
}

// The tile so many bytes further, a multiple of 16.
__device__ inline uint64_t ckv_further(uint64_t descriptor, uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

__device__ inline void ckv_wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void ckv_wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N>
__device__ inline void ckv_wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// Registers that a product writes: nothing moves across.
template <int N>
__device__ inline void ckv_pin(float (&acc)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(acc[i])::"memory");
}

#define CKV_ACC8(a, i)                                                                        \
  "+f"(a[i]), "+f"(a[i + 1]), "+f"(a[i + 2]), "+f"(a[i + 3]), "+f"(a[i + 4]), "+f"(a[i + 5]), \
      "+f"(a[i + 6]), "+f"(a[i + 7])
#define CKV_WGMMA_64(type)                                                                   \
  asm volatile(                                                                              \
      "{.reg .pred p; setp.ne.b32 p, %34, 0;\n"                                              \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type                            \
      " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22," \
      "%23,%24,%25,%26,%27,%28,%29,%30,%31}, %32, %33, p, 1, 1, 0, 0;}\n"                    \
      : CKV_ACC8(acc, 0), CKV_ACC8(acc, 8), CKV_ACC8(acc, 16), CKV_ACC8(acc, 24)             \
      : "l"(a), "l"(b), "r"(add))
#define CKV_WGMMA_128(type)                                                                  \
  asm volatile(                                                                              \
      "{.reg .pred p; setp.ne.b32 p, %66, 0;\n"                                              \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type                           \
      " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22," \
      "%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43," \
      "%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63},"    \
      " %64, %65, p, 1, 1, 0, 0;}\n"                                                         \
      : CKV_ACC8(acc, 0), CKV_ACC8(acc, 8), CKV_ACC8(acc, 16), CKV_ACC8(acc, 24),            \
        CKV_ACC8(acc, 32), CKV_ACC8(acc, 40), CKV_ACC8(acc, 48), CKV_ACC8(acc, 56)           \
      : "l"(a), "l"(b), "r"(add))
#define CKV_WGMMA_160(type)                                                                  \
  asm volatile(                                                                              \
      "{.reg .pred p; setp.ne.b32 p, %82, 0;\n"                                              \
      "wgmma.mma_async.sync.aligned.m64n160k16.f32." type "." type                           \
      " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22," \
      "%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43," \
      "%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64," \
      "%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79},"                        \
      " %80, %81, p, 1, 1, 0, 0;}\n"                                                         \
      : CKV_ACC8(acc, 0), CKV_ACC8(acc, 8), CKV_ACC8(acc, 16), CKV_ACC8(acc, 24),            \
        CKV_ACC8(acc, 32), CKV_ACC8(acc, 40), CKV_ACC8(acc, 48), CKV_ACC8(acc, 56),          \
        CKV_ACC8(acc, 64), CKV_ACC8(acc, 72)                                                 \
      : "l"(a), "l"(b), "r"(add))

// acc[N / 2] of a thread (+)= 64 rows of a by N rows of b over 16 columns.
// acc[4 j + e]: row lane / 4 + 8 (e / 2) of the warp's 16, column 8 j + 2 (lane % 4) + e % 2.
__device__ inline void ckv_wgmma(float (&acc)[32], uint64_t a, uint64_t b, int add, __half) {
  CKV_WGMMA_64("f16");
}
__device__ inline void ckv_wgmma(float (&acc)[32], uint64_t a, uint64_t b, int add, __nv_bfloat16) {
  CKV_WGMMA_64("bf16");
}
__device__ inline void ckv_wgmma(float (&acc)[64], uint64_t a, uint64_t b, int add, __half) {
  CKV_WGMMA_128("f16");
}
__device__ inline void ckv_wgmma(float (&acc)[64], uint64_t a, uint64_t b, int add, __nv_bfloat16) {
  CKV_WGMMA_128("bf16");
}
__device__ inline void ckv_wgmma(float (&acc)[80], uint64_t a, uint64_t b, int add, __half) {
  CKV_WGMMA_160("f16");
}
__device__ inline void ckv_wgmma(float (&acc)[80], uint64_t a, uint64_t b, int add, __nv_bfloat16) {
  CKV_WGMMA_160("bf16");
}

#endif
