#include "score_wgmma.cuh"

#include <algorithm>

#include "host.h"
#include "score_launch.h"
#include "score_maps.h"

template <int STEPS, int ROWS, KeyPath PATH, typename T>
static cudaError_t launch(const ScoreArgs &args, const ScoreMaps &maps, int32_t multiprocessors,
                          cudaStream_t stream) {
  const auto kernel = ckv_score_wgmma_kernel<STEPS, ROWS, PATH, T>;
  using Tiles = WgmmaTiles<STEPS, ROWS>;
  constexpr int BYTES = Tiles::BYTES + sizeof(WgmmaShared<Tiles::STAGES, Tiles::QUERIES>);
  static_assert(BYTES <= 227 * 1024, "all that a block can have");
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
  if (error != cudaSuccess) return error;
  return ckv_cuda_launch(kernel, std::min(args.tickets, multiprocessors), CKV_WGMMA_THREADS, BYTES,
                         stream, args, maps);
}

template <int STEPS, int ROWS, typename T>
static cudaError_t launch_path(const ScorePlan &plan, const ScoreArgs &args,
                               int32_t multiprocessors, cudaStream_t stream) {
  ScoreMaps maps;
  if (plan.tensor && ckv_score_maps(plan, args, &maps)) {
    if constexpr (STEPS >= 8) {
      if (maps.block_heads) {
        return launch<STEPS, ROWS, KeyPath::BLOCKS, T>(args, maps, multiprocessors, stream);
      }
    }
    return launch<STEPS, ROWS, KeyPath::TENSOR, T>(args, maps, multiprocessors, stream);
  }
  return plan.copy ? launch<STEPS, ROWS, KeyPath::COPY, T>(args, maps, multiprocessors, stream)
                   : launch<STEPS, ROWS, KeyPath::CONVERT, T>(args, maps, multiprocessors, stream);
}

template <int STEPS, int ROWS>
static cudaError_t launch_type(const ScorePlan &plan, const ScoreArgs &args,
                               int32_t multiprocessors, cudaStream_t stream) {
  return plan.bf16 ? launch_path<STEPS, ROWS, __nv_bfloat16>(plan, args, multiprocessors, stream)
                   : launch_path<STEPS, ROWS, __half>(plan, args, multiprocessors, stream);
}

template <int STEPS>
static cudaError_t launch_rows(const ScorePlan &plan, const ScoreArgs &args,
                               int32_t multiprocessors, cudaStream_t stream) {
  return args.row_block == 128 ? launch_type<STEPS, 128>(plan, args, multiprocessors, stream)
                               : launch_type<STEPS, 64>(plan, args, multiprocessors, stream);
}

cudaError_t ckv_launch_wgmma(const ScorePlan &plan, const ScoreArgs &args, int32_t multiprocessors,
                             cudaStream_t stream) {
  switch (plan.steps) {
    case 4:
      return launch_rows<4>(plan, args, multiprocessors, stream);
    case 5:
      return launch_rows<5>(plan, args, multiprocessors, stream);
    case 6:
      return launch_rows<6>(plan, args, multiprocessors, stream);
    case 8:
      return launch_rows<8>(plan, args, multiprocessors, stream);
    default:
      return launch_rows<16>(plan, args, multiprocessors, stream);
  }
}
