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

static cuuint64_t size(int64_t n) { return static_cast<cuuint64_t>(n); }

static bool encode(Encode with, bool bf16, CUtensorMap *map, const void *data, int rank,
                   const cuuint64_t *sizes, const cuuint64_t *strides, const cuuint32_t *box) {
  static const cuuint32_t steps[5] = {1, 1, 1, 1, 1};
  return with(map, bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
              static_cast<cuuint32_t>(rank), const_cast<void *>(data), sizes, strides, box, steps,
              CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
              CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
              CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

// A small page is a copy of its own, and each costs the same however few bytes it has. So pages get
// one for all panels of their rows. That takes a dimension more, which heads and blocks share: the
// stride from block to block must be some number of heads.
static bool encode_blocks(Encode with, const ScorePlan &plan, const ScoreArgs &a, ScoreMaps *maps) {
  const KvShape &k = a.keys;
  const int32_t panels = plan.steps / 4;
  if (k.block_size == 0 || k.num_blocks < 1 || panels < 2 || k.head_dim % 64) return false;
  const bool heads = k.num_kv_heads > 1, both = heads && k.num_blocks > 1;
  const int64_t stride = heads ? k.stride_head : k.stride_block;
  if (stride <= 0 || (both && k.stride_block % stride)) return false;
  const int64_t per_block = both ? k.stride_block / stride : 1;
  if (per_block < 1 || per_block > INT32_MAX / k.num_blocks - k.num_kv_heads) return false;
  const cuuint64_t sizes[5] = {64, 8, size(k.head_dim / 64), size(k.block_size / 8),
                               size((k.num_blocks - 1) * per_block + k.num_kv_heads)};
  const cuuint64_t strides[4] = {size(k.stride_token), 128, size(8 * k.stride_token), size(stride)};
  const cuuint32_t box[5] = {64, 8, static_cast<cuuint32_t>(panels),
                             static_cast<cuuint32_t>(maps->box_rows / 8), 1};
  for (int32_t l = 0; l < a.num_layers; l++) {
    if (!encode(with, plan.bf16, &maps->keys[l], a.layers[l].keys, 5, sizes, strides, box)) {
      return false;
    }
  }
  maps->block_heads = static_cast<int32_t>(per_block);
  return true;
}

// A stride that is never walked may be anything, but not for the driver.
static cuuint64_t stride(int64_t count, int64_t bytes) {
  return static_cast<cuuint64_t>(count > 1 ? bytes : 16);
}

static bool encode_queries(Encode with, bool bf16, const ScoreArgs &a, CUtensorMap *map) {
  const int64_t rows = static_cast<int64_t>(a.num_heads) * a.row_blocks * a.row_block;
  const cuuint64_t sizes[2] = {size(a.packed_dim), size(rows)};
  const cuuint64_t strides[1] = {size(2 * a.packed_dim)};
  const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(a.row_block)};
  return encode(with, bf16, map, a.queries, 2, sizes, strides, box);
}

static bool encode_rows(Encode with, const ScorePlan &plan, const ScoreArgs &a, ScoreMaps *maps) {
  const KvShape &k = a.keys;
  const int32_t tokens = k.block_size ? k.block_size : k.kv_len;
  const int32_t outer = k.block_size ? k.num_blocks : k.batch;
  const cuuint64_t sizes[4] = {size(k.head_dim), size(tokens), size(k.num_kv_heads), size(outer)};
  const cuuint64_t strides[3] = {stride(tokens, k.stride_token),
                                 stride(k.num_kv_heads, k.stride_head),
                                 stride(outer, k.block_size ? k.stride_block : k.stride_batch)};
  const cuuint32_t box[4] = {64, static_cast<cuuint32_t>(maps->box_rows), 1, 1};
  for (int32_t l = 0; l < a.num_layers; l++) {
    if (!encode(with, plan.bf16, &maps->keys[l], a.layers[l].keys, 4, sizes, strides, box)) {
      return false;
    }
  }
  return true;
}

bool ckv_score_maps(const ScorePlan &plan, const ScoreArgs &a, ScoreMaps *maps) {
  const Encode with = find_encode();
  if (!with) return false;
  const KvShape &k = a.keys;
  maps->box_rows = k.block_size ? std::min(k.block_size, CKV_TILE_KEYS) : CKV_TILE_KEYS;
  maps->block_heads = 0;
  if (!encode_blocks(with, plan, a, maps) && !encode_rows(with, plan, a, maps)) return false;
  return encode_queries(with, plan.bf16, a, &maps->queries);
}

// A unit's rows in one copy, packed or not.
static bool encode_unit(Encode with, bool bf16, const ScoreArgs &a, const ckv_layer *layers,
                        CUtensorMap *maps) {
  const cuuint64_t units = size(static_cast<int64_t>(a.num_heads) * a.row_blocks);
  const cuuint64_t sizes[4] = {size(a.packed_dim), CKV_CHUNK_ROWS, units, 1};
  const cuuint64_t strides[3] = {size(2 * a.packed_dim), size(2 * a.packed_dim * CKV_CHUNK_ROWS),
                                 16};
  const cuuint32_t box[4] = {64, CKV_CHUNK_ROWS, 1, 1};
  if (a.queries) return encode(with, bf16, &maps[0], a.queries, 4, sizes, strides, box);
  const ckv_query_view *q = layers[0].queries;
  const cuuint64_t own_sizes[4] = {size(q->head_dim), size(q->window), size(q->num_q_heads),
                                   size(q->batch)};
  const cuuint64_t own_strides[3] = {stride(q->window, q->stride_row),
                                     stride(q->num_q_heads, q->stride_head),
                                     stride(q->batch, q->stride_batch)};
  const cuuint32_t own_box[4] = {64, static_cast<cuuint32_t>(q->window),
                                 static_cast<cuuint32_t>(CKV_CHUNK_ROWS / q->window), 1};
  for (int32_t l = 0; l < a.num_layers; l++) {
    const void *data = layers[l].queries->data;
    if (!encode(with, bf16, &maps[l], data, 4, own_sizes, own_strides, own_box)) return false;
  }
  return true;
}

bool ckv_chunk_maps(const ScorePlan &plan, const ChunkArgs &args, const ckv_layer *layers,
                    ChunkMaps *maps) {
  const Encode with = find_encode();
  if (!with) return false;
  const KvShape &k = args.score.keys;
  const int32_t c = args.chunk_size, chunks = k.kv_len / c;
  const cuuint64_t by_head = stride(k.num_kv_heads, k.stride_head);
  const cuuint64_t by_batch = stride(k.batch, k.stride_batch);
  const cuuint64_t heads = size(k.num_kv_heads), batch = size(k.batch), dim = size(k.head_dim);
  const cuuint64_t chunk_sizes[5] = {dim, size(chunks), size(c), heads, batch};
  const cuuint64_t chunk_strides[4] = {stride(chunks, c * k.stride_token),
                                       stride(c, k.stride_token), by_head, by_batch};
  const cuuint32_t chunk_box[5] = {64, CKV_TILE_CHUNKS, static_cast<cuuint32_t>(c / args.parts), 1,
                                   1};
  const cuuint64_t row_sizes[4] = {dim, size(k.kv_len), heads, batch};
  const cuuint64_t row_strides[3] = {stride(k.kv_len, k.stride_token), by_head, by_batch};
  const cuuint32_t row_box[4] = {64, CKV_MAX_WINDOW, 1, 1};
  for (int32_t l = 0; l < args.score.num_layers; l++) {
    const void *keys = args.score.layers[l].keys;
    if (!encode(with, plan.bf16, &maps->chunks[l], keys, 5, chunk_sizes, chunk_strides,
                chunk_box) ||
        !encode(with, plan.bf16, &maps->rows[l], keys, 4, row_sizes, row_strides, row_box)) {
      return false;
    }
  }
  return encode_unit(with, plan.bf16, args.score, layers, maps->queries);
}
