// Kept rows to the front of their sequence, each byte read once and written once.
//
// In place a row may be written only when whoever needs it has read it. Indices rise, so that row i
// is read for rows up to i only: tiles of rows take tickets in rising order, read into registers,
// tell those that write over it, and write when they have been told. Nobody else waits: where a thread
// block waited for all of its threads, rows left later. A ticket waits only for itself and lower ones:
// some thread block can always go on.
#ifndef CKV_COMPACT_CUH
#define CKV_COMPACT_CUH

#include <new>

#include "device_view.cuh"
#include "ptx.cuh"

constexpr int CKV_COMPACT_VIEWS = 64;
constexpr int CKV_COMPACT_THREADS = 256;
constexpr int CKV_COMPACT_UNROLL = 4;
constexpr int CKV_COMPACT_FLAGS = 1 << 18;
constexpr uint32_t CKV_TOLD = 2;
constexpr int CKV_CHECK_SLICE = 4 * CKV_COMPACT_THREADS;  // indices, and blocks, of a turn

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
  uint32_t tile_factor, tile_shift;      // division by tile_rows
  int32_t width;                         // pieces of a part: what a thread moves at once
  int32_t step_rows, step_pieces;        // from one piece of a thread to its next
  int32_t first_unit, units;             // unit: (view, sequence, head, part)
  bool in_place;
  uint32_t *fault, *ticket;
  uint32_t *told;  // [units, tiles]: CKV_TOLD when nobody needs any more what the tile writes over
  CompactView views[CKV_COMPACT_VIEWS];

  // The tile that row t is in.
  __device__ int32_t target_tile(int32_t t) const {
    return tile_rows == 1 ? t : static_cast<int32_t>(__umulhi(t, tile_factor) >> tile_shift);
  }
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

// Whether one of the blocks [first, first + CKV_CHECK_SLICE) that hold n rows is not in the pool.
__device__ inline bool ckv_blocks_lead_outside(const KvShape &shape, int32_t b, int32_t first,
                                               int32_t n) {
  bool bad = false;
  if (shape.block_size == 0) return bad;
#pragma unroll
  for (int i = 0; i < CKV_CHECK_SLICE / CKV_COMPACT_THREADS; i++) {
    const int64_t t =
        static_cast<int64_t>(first + i * CKV_COMPACT_THREADS + threadIdx.x) * shape.block_size;
    if (t < n) bad |= shape.offset(b, 0, static_cast<int32_t>(t)) < 0;
  }
  return bad;
}

// Before anything moves: index sets rise inside their sequences, block tables stay inside their
// pools; and all flags are down. A thread block takes a slice of a set at a time.
__global__ void ckv_check_kept_kernel(const __grid_constant__ CompactArgs a, int32_t num_views,
                                      int32_t slices) {
  ckv_chain();
  const int32_t flags = a.tiles * a.units;
  for (int32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < flags; i += gridDim.x * blockDim.x) {
    a.told[i] = 0;
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *a.ticket = 0;
  if (*a.fault) return;  // found before, and then there are no kept indices
  const int32_t sets = a.from.batch * a.kept_heads;
  const int64_t turns = static_cast<int64_t>(num_views) * sets * slices;
  for (int64_t turn = blockIdx.x; turn < turns; turn += gridDim.x) {
    const int32_t first = static_cast<int32_t>(turn % slices) * CKV_CHECK_SLICE;
    const CompactView &view = a.views[turn / slices / sets];
    const int32_t set = static_cast<int32_t>(turn / slices % sets), b = set / a.kept_heads;
    const int32_t n = a.from.len(b), len = view.lens[b];
    const int32_t *indices = view.indices + static_cast<int64_t>(set) * a.capacity;
    if (len < 0 || len > a.capacity || len > n || len > a.to.len(b)) {
      if (threadIdx.x == 0) atomicOr(a.fault, CKV_FAULT_KEPT);
      continue;
    }
    // In place the blocks of the first rows are among those of all.
    bool bad_block = ckv_blocks_lead_outside(a.from, b, first, n);
    if (!a.in_place) bad_block |= ckv_blocks_lead_outside(a.to, b, first, len);
    bool bad = false;
#pragma unroll
    for (int k = 0; k < CKV_CHECK_SLICE / CKV_COMPACT_THREADS; k++) {
      const int32_t i = first + k * CKV_COMPACT_THREADS + threadIdx.x;
      if (i >= len) continue;
      bad |= indices[i] < i || indices[i] >= n || (i > 0 && indices[i - 1] >= indices[i]);
    }
    if (bad) atomicOr(a.fault, CKV_FAULT_KEPT);
    if (bad_block) atomicOr(a.fault, CKV_FAULT_BLOCK_TABLE);
  }
}

// What a thread block moves, worked out by one thread of it.
struct CompactTile {
  const int32_t *indices, *len;  // of the tile's first row on; of the sequence
  const uint8_t *from;           // to the sequence and head, where these are not found by block
  uint8_t *to;
  int32_t tile, unit, b, head, begin;  // begin: of the part, bytes

  __device__ CompactTile(const CompactArgs &a, int32_t ticket)
      : tile(ticket / a.units), unit(ticket % a.units) {
    int32_t view_index, part;
    a.unit(a.first_unit + unit, &view_index, &b, &head, &part);
    const CompactView &view = a.views[view_index];
    begin = part * a.part_bytes;
    indices = a.indices(view, b, head) + static_cast<int64_t>(tile) * a.tile_rows;
    len = view.lens + b;
    from = view.from + begin + (a.from.block_size ? 0 : a.from.offset(b, head, 0));
    to = view.to + begin + (a.to.block_size ? 0 : a.to.offset(b, head, 0));
  }
  // Bytes from `from` or `to` to row t.
  __device__ int64_t offset(const KvShape &shape, int32_t t) const {
    return shape.block_size ? shape.offset(b, head, t) : t * shape.stride_token;
  }
};

// The pieces of a tile that are a thread's: piece `at` of a row that has `width`.
struct CompactPiece {
  int32_t row, at;

  __device__ explicit CompactPiece(int32_t width)
      : row(threadIdx.x / width), at(threadIdx.x % width) {}
  __device__ void next(const CompactArgs &a) {
    row += a.step_rows;
    at += a.step_pieces;
    if (at >= a.width) row++, at -= a.width;
  }
};

// Whom a tile tells that it has read what they write over; tiles are of as many rows there as here.
//
// Indices rise, so that each tile is told by the last one whose lowest index is below its end, be its
// rows read or not. Where the one before reads there, too, each tells half; three cannot meet, since the
// middle one's rows would fill it. And index i is i at least: who tells is no higher than who is told.
struct CompactNews {
  int32_t first, next;           // all of [first, next)
  uint32_t for_first, for_next;  // `next` is the next tile's: 0, or half

  __device__ CompactNews(const CompactArgs &a, const CompactTile &tile, int32_t len) {
    const int32_t rows = a.tile_rows, end = a.target_tile(len + rows - 1);
    const bool more = tile.tile + 1 < end;
    first = a.target_tile(tile.indices[0]);
    next = more ? min(a.target_tile(tile.indices[rows]), end) : end;
    for_first = tile.tile > 0 && tile.indices[-1] >= first * rows ? CKV_TOLD / 2 : CKV_TOLD;
    for_next = next < end && tile.indices[rows - 1] >= next * rows ? CKV_TOLD / 2 : 0;
    if (tile.tile == 0) first = 0;
  }
  // By a warp.
  __device__ void tell(uint32_t *told, int lane) const {
    for (int32_t t = first + lane; t < next; t += 32) {
      ckv_add_release(&told[t], t == first ? for_first : CKV_TOLD);
    }
    if (lane == 0 && for_next) ckv_add_release(&told[next], for_next);
  }
};

template <typename V>
__global__ void __launch_bounds__(CKV_COMPACT_THREADS, 6)
    ckv_compact_kernel(const __grid_constant__ CompactArgs a) {
  __shared__ __align__(16) uint8_t memory[sizeof(CompactTile)];
  __shared__ __align__(16) uint8_t news[sizeof(CompactNews)];
  __shared__ uint32_t fault;
  CompactTile &shared = *reinterpret_cast<CompactTile *>(memory);
  ckv_chain();
  if (threadIdx.x == 0) {
    fault = *a.fault;
    new (memory) CompactTile(a, atomicAdd(a.ticket, 1u));
  }
  __syncthreads();
  if (fault) return;
  const CompactTile tile = shared;
  const int32_t first = tile.tile * a.tile_rows;
  // Asked for at once: indices past the kept ones, too.
  const int32_t len = __ldg(tile.len), room = min(a.tile_rows, a.capacity - first);
  const int32_t lowest = __ldg(tile.indices);
  int32_t index[CKV_COMPACT_UNROLL];
  const CompactPiece begin(a.width);
  CompactPiece piece = begin;
#pragma unroll
  for (int i = 0; i < CKV_COMPACT_UNROLL; i++, piece.next(a)) {
    index[i] = piece.row < room ? __ldg(tile.indices + piece.row) : 0;
  }
  const int32_t rows = min(a.tile_rows, len - first);
  if (rows <= 0) return;  // no tile above this one has rows either
  const bool tells = a.in_place && (tile.tile == 0 || lowest < len + a.tile_rows);  // anyone
  if (tells && threadIdx.x == 0) new (news) CompactNews(a, tile, len);

  const int32_t pieces = (a.row_bytes - tile.begin) / static_cast<int32_t>(sizeof(V));
  uint32_t moves = 0;  // bits: pieces that do not stay where they are
  V values[CKV_COMPACT_UNROLL];
  piece = begin;
#pragma unroll
  for (int i = 0; i < CKV_COMPACT_UNROLL; i++, piece.next(a)) {
    if (piece.row >= rows || piece.at >= pieces) continue;
    if (a.in_place && index[i] == first + piece.row) continue;
    moves |= 1u << i;
    const uint8_t *from = tile.from + tile.offset(a.from, index[i]);
    values[i] = __ldcs(reinterpret_cast<const V *>(from) + piece.at);
  }
  if (a.in_place) {
    uint32_t *told = a.told + static_cast<int64_t>(tile.unit) * a.tiles;
    if (tells) {
      __threadfence();
      __syncthreads();
      if (threadIdx.x < 32) reinterpret_cast<CompactNews *>(news)->tell(told, threadIdx.x);
    }
    while (ckv_load_acquire(&told[tile.tile]) < CKV_TOLD) {
    }
  }
  piece = begin;
#pragma unroll
  for (int i = 0; i < CKV_COMPACT_UNROLL; i++, piece.next(a)) {
    if (!(moves >> i & 1)) continue;
    uint8_t *to = tile.to + tile.offset(a.to, first + piece.row);
    __stcs(reinterpret_cast<V *>(to) + piece.at, values[i]);
  }
}

#endif
