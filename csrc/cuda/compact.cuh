// Kept rows to the front of their sequence, each byte read once and written once.
//
// In place a row may be written only when whoever needs it has read it. Indices rise, so that row i
// is read for rows up to i only: tiles of rows take tickets in rising order, read into registers,
// say so, and write when all lower tiles of their sequence and head have read. A ticket waits only
// for lower ones: some thread block can always go on.
#ifndef CKV_COMPACT_CUH
#define CKV_COMPACT_CUH

#include "device_view.cuh"
#include "ptx.cuh"

constexpr int CKV_COMPACT_VIEWS = 64;
constexpr int CKV_COMPACT_THREADS = 256;
constexpr int CKV_COMPACT_UNROLL = 4;
constexpr int CKV_COMPACT_FLAGS = 1 << 18;

struct CompactView {
  const uint8_t *from;
  uint8_t *to;
  const int32_t *indices;
  const int32_t *lens;
};

struct CompactArgs {
  KvShape from, to;  // num_kv_heads and head_dim as the caller has them
  int32_t heads;     // 1 where the heads of a token are neighbours and move as one row
  int32_t kept_heads, capacity;
  int32_t row_bytes, part_bytes, parts;  // parts of a row that are tiles of their own
  int32_t tile_rows, tiles;              // per unit
  int32_t first_unit, units;             // unit: (view, sequence, head, part)
  bool in_place;
  uint32_t *fault, *ticket;
  uint32_t *read;  // [units, tiles]: the tile is in registers
  CompactView views[CKV_COMPACT_VIEWS];

  __device__ void unit(int32_t u, int32_t *view, int32_t *b, int32_t *head, int32_t *part) const {
    *part = u % parts;
    *head = u / parts % heads;
    *b = u / parts / heads % from.batch;
    *view = u / parts / heads / from.batch;
  }
  __device__ const int32_t *indices(const CompactView &view, int32_t b, int32_t head) const {
    const int32_t set = b * kept_heads + (kept_heads > 1 ? head : 0);
    return view.indices + static_cast<int64_t>(set) * capacity;
  }
};

// Before anything moves: index sets rise inside their sequences, block tables stay inside their
// pools; and all flags are down.
__global__ void ckv_check_kept_kernel(const __grid_constant__ CompactArgs a, int32_t num_views) {
  ckv_chain();
  const int32_t flags = a.tiles * a.units;
  for (int32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < flags; i += gridDim.x * blockDim.x) {
    a.read[i] = 0;
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *a.ticket = 0;
  if (*a.fault) return;  // found before, and then there are no kept indices
  const int32_t sets = a.from.batch * a.kept_heads;
  for (int32_t s = blockIdx.x; s < num_views * sets; s += gridDim.x) {
    const CompactView &view = a.views[s / sets];
    const int32_t set = s % sets, b = set / a.kept_heads;
    const int32_t n = a.from.len(b), len = view.lens[b];
    const int32_t *indices = view.indices + static_cast<int64_t>(set) * a.capacity;
    if (len < 0 || len > a.capacity || len > n || len > a.to.len(b)) {
      if (threadIdx.x == 0) atomicOr(a.fault, CKV_FAULT_KEPT);
      continue;
    }
    bool bad = false;
    for (int32_t i = threadIdx.x; i < len; i += blockDim.x) {
      bad |= indices[i] < i || indices[i] >= n || (i > 0 && indices[i - 1] >= indices[i]);
    }
    if (bad) atomicOr(a.fault, CKV_FAULT_KEPT);
    bad = false;
    for (int32_t t = threadIdx.x * a.from.block_size; a.from.block_size && t < n;
         t += blockDim.x * a.from.block_size) {
      bad |= a.from.offset(b, 0, t) < 0;
    }
    for (int32_t t = threadIdx.x * a.to.block_size; a.to.block_size && t < len;
         t += blockDim.x * a.to.block_size) {
      bad |= a.to.offset(b, 0, t) < 0;
    }
    if (bad) atomicOr(a.fault, CKV_FAULT_BLOCK_TABLE);
  }
}

template <typename V>
__global__ void __launch_bounds__(CKV_COMPACT_THREADS, 5)
    ckv_compact_kernel(const __grid_constant__ CompactArgs a) {
  __shared__ uint32_t shared_ticket;
  ckv_chain();
  if (*a.fault) return;
  if (threadIdx.x == 0) shared_ticket = atomicAdd(a.ticket, 1u);
  __syncthreads();
  const int32_t tile = static_cast<int32_t>(shared_ticket) / a.units;
  const int32_t u = static_cast<int32_t>(shared_ticket) % a.units;
  int32_t v, b, head, part;
  a.unit(a.first_unit + u, &v, &b, &head, &part);
  const CompactView &view = a.views[v];
  const int32_t len = view.lens[b];
  const int32_t first = tile * a.tile_rows;
  const int32_t rows = min(a.tile_rows, len - first);
  if (rows <= 0) return;  // no tile above this one has rows either

  const int32_t *indices = a.indices(view, b, head);
  const int32_t begin = part * a.part_bytes;
  const int32_t width = min(a.part_bytes, a.row_bytes - begin) / static_cast<int32_t>(sizeof(V));
  V values[CKV_COMPACT_UNROLL];
  int32_t to_row[CKV_COMPACT_UNROLL];
#pragma unroll
  for (int i = 0; i < CKV_COMPACT_UNROLL; i++) {
    const int32_t at = threadIdx.x + i * CKV_COMPACT_THREADS;
    const int32_t row = at / width;
    to_row[i] = -1;
    if (row >= rows) continue;
    const int32_t index = __ldg(indices + first + row);
    if (a.in_place && index == first + row) continue;  // already there
    to_row[i] = first + row;
    const uint8_t *from = view.from + a.from.offset(b, head, index) + begin;
    values[i] = __ldcs(reinterpret_cast<const V *>(from) + at % width);
  }
  if (a.in_place) {
    uint32_t *read = a.read + static_cast<int64_t>(u) * a.tiles;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) ckv_store_release(&read[tile], 1);
    for (int32_t t = threadIdx.x; t < tile; t += CKV_COMPACT_THREADS) {
      while (!ckv_load_acquire(&read[t])) {
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < CKV_COMPACT_UNROLL; i++) {
    if (to_row[i] < 0) continue;
    const int32_t at = threadIdx.x + i * CKV_COMPACT_THREADS;
    uint8_t *to = view.to + a.to.offset(b, head, to_row[i]) + begin;
    __stcs(reinterpret_cast<V *>(to) + at % width, values[i]);
  }
}

#endif
