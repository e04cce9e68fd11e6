#include "score_mma.cuh"

#include <algorithm>

#include "host.h"
#include "score_launch.h"

template <int STEPS, bool COPY, typename T>
static cudaError_t launch(const ScoreArgs &args, int32_t multiprocessors, cudaStream_t stream) {
  const auto kernel = ckv_score_mma_kernel<STEPS, COPY, T>;
  constexpr int BYTES = MmaTiles<STEPS>::BYTES;
  cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
  int blocks = 1;
  if (!error) {
    error =
        cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, CKV_MMA_THREADS + 32, BYTES);
  }
  if (error != cudaSuccess) return error;
  return ckv_cuda_launch(kernel, std::min(args.tickets, multiprocessors * std::max(blocks, 1)),
                         CKV_MMA_THREADS + 32, BYTES, stream, args);
}

template <int STEPS>
static cudaError_t launch_type(const ScorePlan &plan, const ScoreArgs &args,
                               int32_t multiprocessors, cudaStream_t stream) {
  if (plan.bf16) {
    return plan.copy ? launch<STEPS, true, __nv_bfloat16>(args, multiprocessors, stream)
                     : launch<STEPS, false, __nv_bfloat16>(args, multiprocessors, stream);
  }
  return plan.copy ? launch<STEPS, true, __half>(args, multiprocessors, stream)
                   : launch<STEPS, false, __half>(args, multiprocessors, stream);
}

cudaError_t ckv_launch_mma(const ScorePlan &plan, const ScoreArgs &args, int32_t multiprocessors,
                           cudaStream_t stream) {
  switch (plan.steps) {
    case 4:
      return launch_type<4>(plan, args, multiprocessors, stream);
    case 8:
      return launch_type<8>(plan, args, multiprocessors, stream);
    default:
      return launch_type<16>(plan, args, multiprocessors, stream);
  }
}
