// Keys and queries to tiles of shared memory: 16-bit rows by asynchronous copies, everything else
// converted on the way. Tiles are laid out as wgmma.cuh says; both kernels read that.
#ifndef CKV_SCORE_LOAD_CUH
#define CKV_SCORE_LOAD_CUH

#include "score_args.cuh"
#include "wgmma.cuh"

template <typename T>
__device__ inline T ckv_from_float(float value);
template <>
__device__ inline __half ckv_from_float<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ inline __nv_bfloat16 ckv_from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

__device__ inline uint16_t ckv_u16(const uint8_t *at) {
  return __ldg(reinterpret_cast<const unsigned short *>(at));
}
__device__ inline float ckv_half_bits(uint16_t bits) {
  return __half2float(__ushort_as_half(bits));
}

// Exact: e4m3fn has no infinities, 0x7f and 0xff are NaN.
__device__ inline float ckv_e4m3(uint32_t bits) {
  const uint32_t magnitude = bits & 0x7f;
  const float value = magnitude == 0x7f ? __uint_as_float(0x7fc00000u)
                      : magnitude < 8   ? magnitude * 0x1p-9f
                                        : __uint_as_float((magnitude << 20) + (120u << 23));
  return bits & 0x80 ? -value : value;
}

// Element `i` of a row that is aligned to its element type.
__device__ inline float ckv_element(int32_t dtype, const uint8_t *row, int32_t i) {
  switch (dtype) {
    case CKV_F32:
      return __ldg(reinterpret_cast<const float *>(row) + i);
    case CKV_F16:
      return ckv_half_bits(ckv_u16(row + 2 * i));
    case CKV_BF16:
      return __uint_as_float(static_cast<uint32_t>(ckv_u16(row + 2 * i)) << 16);
    default:
      return ckv_e4m3(__ldg(row + i));
  }
}

// Elements [8 piece, 8 piece + 8) of a row that is not in blocks, zeros past head_dim.
__device__ inline void ckv_read_piece(int32_t dtype, const uint8_t *row, int32_t piece,
                                      int32_t head_dim, float (&out)[8]) {
  const int32_t first = piece * 8;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    out[i] = first + i < head_dim ? ckv_element(dtype, row, first + i) : 0.0f;
  }
}

template <typename T>
__device__ inline void ckv_store_piece(uint32_t to, const float (&values)[8]) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    union {
      T half[2];
      uint32_t word;
    } pair;
    pair.half[0] = ckv_from_float<T>(values[2 * i]);
    pair.half[1] = ckv_from_float<T>(values[2 * i + 1]);
    words[i] = pair.word;
  }
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words[0]), "r"(words[1]),
               "r"(words[2]), "r"(words[3])
               : "memory");
}

// A block of 32 elements as ggml has it, aligned to 2 bytes: a scale, then a byte for each element (q8_0),
// or half of one (q4_0, of which the low halves are elements 0 to 15).
template <bool BYTES>
struct KeyBlock {
  static constexpr int SIZE = BYTES ? 34 : 18;
  static constexpr int WORDS = (SIZE + 2) / 4;
  uint32_t words[WORDS];  // aligned ones, which begin with the scale or 2 bytes before it
  uint32_t shift;         // bits before the first element

  __device__ void read(const uint8_t *block) {
    const uint32_t before = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(block) & 2);
    const uint32_t *from = reinterpret_cast<const uint32_t *>(block - before);
    shift = 16 + 8 * before;
#pragma unroll
    for (int i = 0; i < WORDS - 1; i++) words[i] = __ldg(from + i);
    words[WORDS - 1] = before ? __ldg(from + WORDS - 1)
                              : ckv_u16(reinterpret_cast<const uint8_t *>(from + WORDS - 1));
  }
  __device__ void clear() {
    shift = 16;
#pragma unroll
    for (int i = 0; i < WORDS; i++) words[i] = 0;
  }

  // Elements [8 piece, 8 piece + 8).
  __device__ void open(int piece, float (&out)[8]) const {
    const float scale = ckv_half_bits(static_cast<uint16_t>(words[0] >> (shift - 16)));
    const int first = BYTES ? 2 * piece : piece % 2 * 2;
#pragma unroll
    for (int w = 0; w < 2; w++) {
      const uint32_t four = __funnelshift_rc(words[first + w], words[first + w + 1], shift);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const uint32_t byte = four >> (8 * i) & 0xff;
        out[4 * w + i] = BYTES ? scale * static_cast<int8_t>(byte)
                               : scale * (static_cast<int>(byte >> (piece < 2 ? 0 : 4) & 15) - 8);
      }
    }
  }
};

// Rows in blocks, a lane a block: two are asked for before the first is looked at. Loads do not move up
// across a store to the tile, and one after the other each would wait for memory.
template <int STEPS, int ROWS, int WARPS, bool BYTES, typename T, typename Rows>
__device__ inline void ckv_load_blocks(uint32_t tile, unsigned warp, unsigned lane,
                                       int32_t head_dim, const Rows &rows) {
  constexpr unsigned OF_ROW = (STEPS + 1) / 2, OWN = ROWS / WARPS, ALL = OWN * OF_ROW;
  constexpr unsigned AHEAD = 2;
#pragma unroll 1
  for (unsigned begin = lane; begin < ALL + lane; begin += 32 * AHEAD) {
    KeyBlock<BYTES> blocks[AHEAD];
#pragma unroll
    for (unsigned k = 0; k < AHEAD; k++) {
      const unsigned index = begin + k * 32, block = index % OF_ROW;
      const uint8_t *from = rows(warp * OWN + index / OF_ROW);  // by all lanes
      if (from && index < ALL && static_cast<int32_t>(block * 32) < head_dim) {
        blocks[k].read(from + block * KeyBlock<BYTES>::SIZE);
      } else {
        blocks[k].clear();
      }
    }
#pragma unroll
    for (unsigned k = 0; k < AHEAD; k++) {
      const unsigned index = begin + k * 32, row = warp * OWN + index / OF_ROW;
      if (index >= ALL) continue;
#pragma unroll
      for (unsigned p = 0; p < 4; p++) {
        const unsigned piece = index % OF_ROW * 4 + p;
        if (STEPS % 2 != 0 && piece >= 2 * STEPS) continue;
        float values[8];
        blocks[k].open(p, values);
        ckv_store_piece<T>(tile + piece / 8 * (ROWS * 128) + ckv_swizzle(row, piece % 8), values);
      }
    }
  }
}

// Row t of the keys of an item, NULL where there is none.
__device__ inline const uint8_t *ckv_key_row(const ScoreArgs &a, const ScoreItem &item,
                                             const uint8_t *base, int32_t t, int32_t n) {
  if (t >= n) return nullptr;
  const int64_t offset = a.keys.offset(item.batch, item.head, t);
  if (offset < 0) atomicOr(a.fault, CKV_FAULT_BLOCK_TABLE);
  return offset < 0 ? nullptr : base + offset;
}

// Where rows of a tile are; NULL for rows of zeros.
struct StridedRows {
  const uint8_t *first;
  int64_t stride;
  int32_t rows;

  __device__ const uint8_t *operator()(int row) const {
    return row < rows ? first + row * stride : nullptr;
  }
};

// Each of WARPS warps finds its rows once, a lane a row, and hands them round.
template <int OWN, typename Find>
struct FoundRows {
  uint64_t mine;

  __device__ FoundRows(int warp, int lane, Find find)
      : mine(reinterpret_cast<uint64_t>(find(warp * OWN + lane % OWN))) {}
  __device__ const uint8_t *operator()(int row) const {
    return reinterpret_cast<const uint8_t *>(__shfl_sync(0xffffffffu, mine, row % OWN));
  }
};

// ROWS rows go to `tile` by WARPS warps. STEPS 16-element steps of each are written; `safe` is any
// readable address.
template <int STEPS, int ROWS, int WARPS, bool COPY, typename T, typename Rows>
__device__ inline void ckv_load_rows(uint32_t tile, unsigned warp, unsigned lane, int32_t dtype,
                                     int32_t head_dim, const void *safe, const Rows &rows) {
  constexpr unsigned PIECES = 2 * STEPS;
  constexpr unsigned OWN = ROWS / WARPS;  // rows of a warp
  if (!COPY && dtype == CKV_Q8_0) {
    ckv_load_blocks<STEPS, ROWS, WARPS, true, T>(tile, warp, lane, head_dim, rows);
    return;
  }
  if (!COPY && dtype == CKV_Q4_0) {
    ckv_load_blocks<STEPS, ROWS, WARPS, false, T>(tile, warp, lane, head_dim, rows);
    return;
  }
#pragma unroll 4
  for (unsigned i = 0; i < (OWN * PIECES + 31) / 32; i++) {
    const unsigned index = i * 32 + lane;
    const unsigned piece = index % PIECES, row = warp * OWN + index / PIECES;
    const uint8_t *from = rows(row);
    if (OWN * PIECES % 32 != 0 && index >= OWN * PIECES) continue;
    const uint32_t to = tile + piece / 8 * (ROWS * 128) + ckv_swizzle(row, piece % 8);
    if (COPY) {
      const bool valid = from && static_cast<int32_t>(piece * 8) < head_dim;
      const void *source = valid ? from + piece * 16 : safe;
      ckv_copy_async(to, source, valid);
    } else {
      float values[8] = {};
      if (from) ckv_read_piece(dtype, from, piece, head_dim, values);
      ckv_store_piece<T>(to, values);
    }
  }
}

// The keys [first, first + 128) of an item.
template <int STEPS, int WARPS, bool COPY, typename T>
__device__ inline void ckv_load_keys(const ScoreArgs &a, const ScoreItem &item, int32_t first,
                                     int32_t n, uint32_t tile, int warp, int lane) {
  const uint8_t *base = static_cast<const uint8_t *>(a.layers[item.layer].keys);
  if (a.keys.block_size == 0) {
    const StridedRows rows{base + a.keys.offset(item.batch, item.head, first), a.keys.stride_token,
                           n - first};
    ckv_load_rows<STEPS, CKV_TILE_KEYS, WARPS, COPY, T>(tile, warp, lane, a.keys.dtype,
                                                        a.keys.head_dim, base, rows);
    return;
  }
  const auto find = [&](int row) -> const uint8_t * {
    if (first + row >= n) return nullptr;
    const int64_t offset = a.keys.offset(item.batch, item.head, first + row);
    if (offset < 0) atomicOr(a.fault, CKV_FAULT_BLOCK_TABLE);
    return offset < 0 ? nullptr : base + offset;
  };
  const FoundRows<CKV_TILE_KEYS / WARPS, decltype(find)> rows(warp, lane, find);
  ckv_load_rows<STEPS, CKV_TILE_KEYS, WARPS, COPY, T>(tile, warp, lane, a.keys.dtype,
                                                      a.keys.head_dim, base, rows);
}

// The packed query rows of a unit.
template <int STEPS, int ROWS, int WARPS, typename T>
__device__ inline void ckv_load_queries(const ScoreArgs &a, const ScoreItem &item, uint32_t tile,
                                        int warp, int lane) {
  const int64_t row_bytes = 2 * a.packed_dim;
  const StridedRows rows{a.queries + item.unit(a) * ROWS * row_bytes, row_bytes, ROWS};
  ckv_load_rows<STEPS, ROWS, WARPS, true, T>(tile, warp, lane, 0, a.packed_dim, a.queries, rows);
}

#endif
