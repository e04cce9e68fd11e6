// The machine's instructions that C++ has no words for.
#ifndef CKV_PTX_CUH
#define CKV_PTX_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

__device__ inline float ckv_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline uint32_t ckv_smem(const void *pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes to shared memory behind the program's back; zeros where `valid` is false.
__device__ inline void ckv_copy_async(uint32_t to, const void *from, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}
__device__ inline void ckv_copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
__device__ inline void ckv_copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

__device__ inline uint32_t ckv_load_acquire(const uint32_t *flag) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}
__device__ inline uint32_t ckv_load_relaxed(const void *value) {
  uint32_t bits;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(bits) : "l"(value) : "memory");
  return bits;
}
__device__ inline void ckv_add_release(uint32_t *count, uint32_t value) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(count), "r"(value) : "memory");
}

// A kernel of ours may start while the one before it ends. Its first act is to let the next one
// start in turn, and to wait until all that came before is done and seen. Nothing before sm_90.
__device__ inline void ckv_let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ inline void ckv_wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ inline void ckv_chain() {
  ckv_let_next_start();
  ckv_wait_for_previous();
}

// A barrier among some warps of a thread block.
__device__ inline void ckv_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- mbarriers (sm_80: arrive and test; waiting is sm_90's try_wait) ----------------------------

__device__ inline void ckv_mbarrier_init(uint64_t *barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(ckv_smem(barrier)), "r"(arrivals)
               : "memory");
}
__device__ inline void ckv_mbarrier_arrive(uint64_t *barrier) {
  asm volatile("{.reg .b64 t; mbarrier.arrive.shared.b64 t, [%0];}" ::"r"(ckv_smem(barrier))
               : "memory");
}
// Arrives when all asynchronous copies of this thread so far are done.
__device__ inline void ckv_arrive_copied(uint64_t *barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(ckv_smem(barrier))
               : "memory");
}
// Ordinary writes to shared memory before, wgmma's reads after. Nothing before sm_90.
__device__ inline void ckv_fence_async() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
// What follows is sm_90's alone: kernels have no body elsewhere.
// So many bytes more will come; the phase is not over before.
__device__ inline void ckv_mbarrier_expect(uint64_t *barrier, uint32_t bytes) {
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(ckv_smem(barrier)),
               "r"(bytes)
               : "memory");
}
__device__ inline void ckv_copy_tensor_2d(uint32_t to, const void *map, uint64_t *barrier,
                                          int32_t x, int32_t y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4}], [%2];" ::"r"(to),
      "l"(map), "r"(ckv_smem(barrier)), "r"(x), "r"(y)
      : "memory");
}
__device__ inline void ckv_copy_tensor_4d(uint32_t to, const void *map, uint64_t *barrier,
                                          int32_t x, int32_t y, int32_t z, int32_t w,
                                          uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(to),
      "l"(map), "r"(ckv_smem(barrier)), "r"(x), "r"(y), "r"(z), "r"(w), "l"(policy)
      : "memory");
}
__device__ inline void ckv_copy_tensor_5d(uint32_t to, const void *map, uint64_t *barrier,
                                          int32_t x, int32_t y, int32_t z, int32_t w, int32_t v,
                                          uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %5, %6, %7}], [%2], %8;" ::"r"(to),
      "l"(map), "r"(ckv_smem(barrier)), "r"(x), "r"(y), "r"(z), "r"(w), "r"(v), "l"(policy)
      : "memory");
}
// From the first of all but the two outermost dimensions.
__device__ inline void ckv_copy_tensor_5d(uint32_t to, const void *map, uint64_t *barrier,
                                          int32_t w, int32_t v, uint64_t policy) {
  ckv_copy_tensor_5d(to, map, barrier, 0, 0, 0, w, v, policy);
}
__device__ inline bool ckv_mbarrier_try_wait(uint64_t *barrier, uint32_t phase) {
  uint32_t done;
  asm volatile(
      "{.reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
      : "=r"(done)
      : "r"(ckv_smem(barrier)), "r"(phase)
      : "memory");
  return done;
}
__device__ inline void ckv_mbarrier_wait(uint64_t *barrier, uint32_t phase) {
  while (!ckv_mbarrier_try_wait(barrier, phase)) {
  }
}

#endif
