// Chunk scores in one pass over the keys, on Hopper: what its kernels are given.
//
// A chunk's score is the sum, over query rows r and the chunk's tokens t, of exp(logit[r, t] - lse[r]). For
// a row that is exp(base - lse[r]) times the sum of exp(logit - base) over the tokens: so the sums are taken
// before the log-sum-exp is known, against any base near the row's maximum, and weighed when it is.
//
// A tile has 16 chunks, of each the same POSITIONS tokens in a row, laid out token by token: what one
// thread of the matrix instruction holds of a row is then two chunks' tokens and no others, twice, and
// their sum costs what the sum of the row costs anyway. A unit is one (layer, sequence, kv head, block of 128
// query rows); its last tile is the window, which every row sees a part of. Thread blocks take equal
// runs of the tiles of all units.
#ifndef CKV_CHUNK_ARGS_CUH
#define CKV_CHUNK_ARGS_CUH

#include "score_args.cuh"

constexpr int CKV_CHUNK_LAYERS = 16;  // per launch
constexpr int CKV_CHUNK_ROWS = 128;   // query rows of a unit
constexpr int CKV_TILE_CHUNKS = 16;
constexpr int CKV_CHUNK_PAIRS = 2;  // of warpgroups that take tiles in turn
constexpr int CKV_CHUNK_THREADS = 512;
constexpr int CKV_CHUNK_WARPS = CKV_CHUNK_THREADS / 32;
constexpr int CKV_MAX_WINDOW = 64;

struct ChunkArgs {
  ScoreArgs score;  // shapes, scales and packed queries, as the two passes have them
  int32_t scored;   // tokens before the window
  int32_t chunk_size;
  int32_t parts;   // tiles that the tokens of a chunk are in: chunk_size / POSITIONS
  int32_t tiles;   // of a unit, without the window's: tile = 16 chunks' number * parts + part
  int32_t total;   // tiles of all units, windows included
  int32_t blocks;  // thread blocks
  int32_t slots;   // of row maxima per unit: one for each pair of each thread block that it meets
  float4 *sums;    // [unit][tile][row][4]: chunks 2 i, 2 i + 1, 8 + 2 i, 9 + 2 i
  float *bases;    // [unit][tile][row]: units of log2

  __host__ __device__ int32_t of_unit() const { return tiles + 1; }
  // Tiles [begin_of(block), begin_of(block + 1)) are the block's, one at least.
  __host__ __device__ int32_t begin_of(int32_t block) const {
    return static_cast<int32_t>(static_cast<int64_t>(block) * total / blocks);
  }
  // Who has the unit's first tile.
  __host__ __device__ int32_t first_block(int32_t unit) const {
    const int64_t tile = static_cast<int64_t>(unit) * of_unit();
    return static_cast<int32_t>(((tile + 1) * blocks - 1) / total);
  }
};

// The run of tiles from `at` that is of one unit.
struct ChunkSegment {
  int32_t unit, first, last;

  __device__ ChunkSegment(const ChunkArgs &a, int32_t at, int32_t end)
      : unit(at / a.of_unit()),
        first(at % a.of_unit()),
        last(min(a.of_unit(), at % a.of_unit() + end - at)) {}
  __device__ int32_t tiles() const { return last - first; }
};

#endif
