#include "chunk_wgmma.cuh"

#include "host.h"
#include "score_launch.h"

template <int STEPS, int POSITIONS, typename T>
static cudaError_t launch(const ChunkArgs &args, const ChunkMaps &maps, cudaStream_t stream) {
  const auto kernel = ckv_chunk_wgmma_kernel<STEPS, POSITIONS, T>;
  using Tiles = ChunkTiles<STEPS, POSITIONS>;
  constexpr int BYTES = Tiles::BYTES + sizeof(ChunkShared<Tiles::STAGES>);
  static_assert(BYTES <= 227 * 1024, "all that a block can have");
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
  if (error != cudaSuccess) return error;
  return ckv_cuda_launch(kernel, args.blocks, CKV_CHUNK_THREADS, BYTES, stream, args, maps);
}

template <int STEPS, int POSITIONS>
static cudaError_t launch_type(bool bf16, const ChunkArgs &args, const ChunkMaps &maps,
                               cudaStream_t stream) {
  return bf16 ? launch<STEPS, POSITIONS, __nv_bfloat16>(args, maps, stream)
              : launch<STEPS, POSITIONS, __half>(args, maps, stream);
}

template <int STEPS>
static cudaError_t launch_chunk(const ChunkPlan &plan, const ChunkArgs &args, const ChunkMaps &maps,
                                cudaStream_t stream) {
  return plan.positions == 10 ? launch_type<STEPS, 10>(plan.score.bf16, args, maps, stream)
                              : launch_type<STEPS, 8>(plan.score.bf16, args, maps, stream);
}

cudaError_t ckv_launch_chunks(const ChunkPlan &plan, const ChunkArgs &args, const ChunkMaps &maps,
                              cudaStream_t stream) {
  switch (plan.score.steps) {
    case 4:
      return launch_chunk<4>(plan, args, maps, stream);
    case 6:
      return launch_chunk<6>(plan, args, maps, stream);
    default:
      return launch_chunk<8>(plan, args, maps, stream);
  }
}
