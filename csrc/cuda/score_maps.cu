#include "score_maps.h"

#include <cuda_runtime.h>

#include <algorithm>

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's function, without linking to the driver: the library loads where none is.
static Encode find_encode() {
  void *found = nullptr;
  cudaDriverEntryPointQueryResult result;
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found,
                                                             12000, cudaEnableDefault, &result);
  if (error != cudaSuccess) cudaGetLastError();
  return error == cudaSuccess && result == cudaDriverEntryPointSuccess
             ? reinterpret_cast<Encode>(found)
             : nullptr;
}

static bool encode(Encode with, bool bf16, CUtensorMap *map, const void *data, int rank,
                   const cuuint64_t *sizes, const cuuint64_t *strides, cuuint32_t rows) {
  const cuuint32_t box[4] = {64, rows, 1, 1}, steps[4] = {1, 1, 1, 1};
  return with(map, bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
              static_cast<cuuint32_t>(rank), const_cast<void *>(data), sizes, strides, box, steps,
              CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
              CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
              CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

bool ckv_score_maps(const ScorePlan &plan, const ScoreArgs &a, ScoreMaps *maps) {
  const Encode with = find_encode();
  if (!with) return false;
  const KvShape &k = a.keys;
  const auto size = [](int64_t n) { return static_cast<cuuint64_t>(n); };
  // A stride that is never walked may be anything, but not for the driver.
  const auto stride = [](int64_t count, int64_t bytes) {
    return static_cast<cuuint64_t>(count > 1 ? bytes : 16);
  };
  const int32_t tokens = k.block_size ? k.block_size : k.kv_len;
  const int32_t outer = k.block_size ? k.num_blocks : k.batch;
  const cuuint64_t sizes[4] = {size(k.head_dim), size(tokens), size(k.num_kv_heads), size(outer)};
  const cuuint64_t strides[3] = {stride(tokens, k.stride_token),
                                 stride(k.num_kv_heads, k.stride_head),
                                 stride(outer, k.block_size ? k.stride_block : k.stride_batch)};
  maps->box_rows = k.block_size ? std::min(k.block_size, CKV_TILE_KEYS) : CKV_TILE_KEYS;
  for (int32_t l = 0; l < a.num_layers; l++) {
    if (!encode(with, plan.bf16, &maps->keys[l], a.layers[l].keys, 4, sizes, strides,
                static_cast<cuuint32_t>(maps->box_rows))) {
      return false;
    }
  }
  const int64_t rows = static_cast<int64_t>(a.num_heads) * a.row_blocks * a.row_block;
  const cuuint64_t query_sizes[2] = {size(a.packed_dim), size(rows)};
  const cuuint64_t query_strides[1] = {size(2 * a.packed_dim)};
  return encode(with, plan.bf16, &maps->queries, a.queries, 2, query_sizes, query_strides,
                static_cast<cuuint32_t>(a.row_block));
}
