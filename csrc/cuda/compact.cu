// Stage three on the device: rows moved.
#include "compact.cuh"

#include <algorithm>

#include "host.h"
#include "stages.h"
#include "workspace.h"

int64_t ckv_cuda_compact_bytes(const ckv_params *, const ckv_layer *, int32_t num_layers) {
  if (num_layers == 0) return 0;
  CkvWorkspaceCursor at;
  at.take(4);
  at.take(static_cast<int64_t>(CKV_COMPACT_FLAGS) * 4);
  return at.end;
}

static bool alike(const ckv_kv_view *a, const ckv_kv_view *b, const ckv_kept *p,
                  const ckv_kept *q) {
  return ckv_same_shape(a, b) && p->num_heads == q->num_heads && p->capacity == q->capacity;
}

// The widest access, in bytes, that every row of these views allows.
static int32_t access_bytes(const CompactArgs &a, int32_t num_views) {
  int64_t bits = 16 | a.row_bytes | a.from.stride_batch | a.from.stride_head | a.from.stride_token |
                 a.from.stride_block | a.to.stride_batch | a.to.stride_head | a.to.stride_token |
                 a.to.stride_block;
  for (int32_t v = 0; v < num_views; v++) {
    bits |= reinterpret_cast<intptr_t>(a.views[v].from) | reinterpret_cast<intptr_t>(a.views[v].to);
  }
  return static_cast<int32_t>(bits & -bits);
}

static bool heads_are_neighbours(const ckv_kv_view *view, int64_t row_bytes) {
  return view->stride_head == row_bytes;
}

// Of 31 bits by tile_rows: a multiplication and a shift.
static void set_division(CompactArgs *a) {
  while (1u << a->tile_shift < static_cast<uint32_t>(a->tile_rows)) a->tile_shift++;
  if (a->tile_shift == 0) return;
  a->tile_factor = static_cast<uint32_t>((uint64_t{1} << (31 + a->tile_shift)) / a->tile_rows + 1);
  a->tile_shift--;
}

// Turns of the check that the longest set and the longest row of a block table take.
static int32_t check_slices(const CompactArgs &a, int32_t longest) {
  int32_t entries = longest;
  if (a.from.block_size) entries = std::max(entries, a.from.kv_len / a.from.block_size + 1);
  if (a.to.block_size) entries = std::max(entries, a.to.kv_len / a.to.block_size + 1);
  return (entries + CKV_CHECK_SLICE - 1) / CKV_CHECK_SLICE;
}

template <typename V>
static cudaError_t launch(const CompactArgs &a, cudaStream_t stream) {
  return ckv_cuda_launch(ckv_compact_kernel<V>, static_cast<int64_t>(a.tiles) * a.units,
                         CKV_COMPACT_THREADS, 0, stream, a);
}

static cudaError_t launch_by_access(const CompactArgs &a, int32_t access, cudaStream_t stream) {
  switch (access) {
    case 16:
      return launch<uint4>(a, stream);
    case 8:
      return launch<uint2>(a, stream);
    case 4:
      return launch<uint32_t>(a, stream);
    case 2:
      return launch<uint16_t>(a, stream);
    default:
      return launch<uint8_t>(a, stream);
  }
}

// Checks indices and tables of views of one shape, and then moves their rows if it is to.
static ckv_status check_and_move(const ckv_cuda_call *call, const ckv_kv_view *const *src,
                                 const ckv_kv_view *const *dst, const ckv_kept *const *kept,
                                 int32_t num_views, bool moves) {
  const ckv_kv_view *from = src[0], *to = dst[0];
  const int64_t head_bytes = ckv_cuda_row_bytes(from->dtype, from->head_dim);
  CompactArgs a{};
  a.from = ckv_shape_of(from);
  a.to = ckv_shape_of(to);
  a.kept_heads = kept[0]->num_heads;
  a.capacity = std::min(kept[0]->capacity, from->kv_len);
  const bool merge = a.kept_heads == 1 && heads_are_neighbours(from, head_bytes) &&
                     heads_are_neighbours(to, head_bytes) &&
                     head_bytes * from->num_kv_heads <= 4096;
  a.heads = merge ? 1 : from->num_kv_heads;
  a.row_bytes = static_cast<int32_t>(merge ? head_bytes * from->num_kv_heads : head_bytes);
  a.in_place = src[0] == dst[0];
  if (a.capacity == 0) return CKV_OK;
  a.capacity = kept[0]->capacity;
  uint8_t *base = static_cast<uint8_t *>(call->workspace);
  a.fault = reinterpret_cast<uint32_t *>(base);
  CkvWorkspaceCursor at;
  a.ticket = reinterpret_cast<uint32_t *>(base + at.take(4));
  a.told =
      reinterpret_cast<uint32_t *>(base + at.take(static_cast<int64_t>(CKV_COMPACT_FLAGS) * 4));
  for (int32_t v = 0; v < num_views; v++) {
    a.views[v] = {static_cast<const uint8_t *>(src[v]->data), static_cast<uint8_t *>(dst[v]->data),
                  kept[v]->indices, kept[v]->lens};
  }

  const int32_t access = access_bytes(a, num_views);
  const int32_t tile_bytes = access * CKV_COMPACT_THREADS * CKV_COMPACT_UNROLL;
  a.part_bytes = std::min(a.row_bytes, tile_bytes);
  a.parts = (a.row_bytes + a.part_bytes - 1) / a.part_bytes;
  a.width = a.part_bytes / access;
  a.step_rows = CKV_COMPACT_THREADS / a.width;
  a.step_pieces = CKV_COMPACT_THREADS % a.width;
  a.tile_rows = a.parts > 1 ? 1 : tile_bytes / a.row_bytes;
  set_division(&a);
  const int32_t longest = std::min(kept[0]->capacity, from->kv_len);
  a.tiles = (longest + a.tile_rows - 1) / a.tile_rows;
  if (a.tiles > CKV_COMPACT_FLAGS) {
    return ckv_cuda_fail(call, CKV_ERROR_UNSUPPORTED,
                         "Expected at most %lld kept rows on CUDA but found room for %d",
                         static_cast<long long>(CKV_COMPACT_FLAGS) * a.tile_rows, longest);
  }
  const int64_t all = static_cast<int64_t>(num_views) * from->batch * a.heads * a.parts;
  if (all > INT32_MAX - CKV_COMPACT_FLAGS) {
    return ckv_cuda_fail(call, CKV_ERROR_UNSUPPORTED,
                         "Expected at most %d heads of all sequences on CUDA but found %lld",
                         INT32_MAX - CKV_COMPACT_FLAGS, static_cast<long long>(all));
  }
  const cudaStream_t stream = ckv_cuda_stream(call);
  for (a.first_unit = 0; a.first_unit < all; a.first_unit += a.units) {
    a.units =
        static_cast<int32_t>(std::min<int64_t>(all - a.first_unit, CKV_COMPACT_FLAGS / a.tiles));
    const int32_t slices = check_slices(a, longest);
    const int64_t turns = static_cast<int64_t>(num_views) * from->batch * a.kept_heads * slices;
    cudaError_t error = ckv_cuda_launch(ckv_check_kept_kernel, std::clamp<int64_t>(turns, 32, 1024),
                                        CKV_COMPACT_THREADS, 0, stream, a, num_views, slices);
    if (!error && moves) error = launch_by_access(a, access, stream);
    const ckv_status status = ckv_cuda_check(call, error, "the compaction kernels to start");
    if (status) return status;
  }
  return CKV_OK;
}

// Views of the first one's shape, so many as one launch takes.
static int32_t count_alike(const ckv_kv_view *const *src, const ckv_kv_view *const *dst,
                           const ckv_kept *const *kept, int32_t num_views) {
  const bool in_place = src[0] == dst[0];
  int32_t count = 1;
  while (count < num_views && count < CKV_COMPACT_VIEWS && (src[count] == dst[count]) == in_place &&
         alike(src[0], src[count], kept[0], kept[count]) &&
         alike(dst[0], dst[count], kept[0], kept[count])) {
    count++;
  }
  return count;
}

ckv_status ckv_cuda_compact(const ckv_cuda_call *call, const ckv_kv_view *const *src,
                            const ckv_kv_view *const *dst, const ckv_kept *const *kept,
                            int32_t num_views) {
  if (num_views > 0 && ckv_cuda_compact_bytes(nullptr, nullptr, 1) > call->workspace_bytes) {
    return ckv_cuda_fail(call, CKV_ERROR_OUT_OF_MEMORY,
                         "Expected a workspace of %lld bytes but found %lld",
                         static_cast<long long>(ckv_cuda_compact_bytes(nullptr, nullptr, 1)),
                         static_cast<long long>(call->workspace_bytes));
  }
  // No row moves before all are checked: one launch checks its own views first, several go round twice.
  const bool twice = num_views > 0 && count_alike(src, dst, kept, num_views) < num_views;
  for (int32_t round = twice ? 0 : 1; round < 2; round++) {
    for (int32_t first = 0, count; first < num_views; first += count) {
      count = count_alike(src + first, dst + first, kept + first, num_views - first);
      if (src[first]->batch == 0 || src[first]->kv_len == 0) continue;
      const ckv_status status =
          check_and_move(call, src + first, dst + first, kept + first, count, round == 1);
      if (status) return status;
    }
  }
  return CKV_OK;
}
