// What a score kernel gets and gives: the contract of every ISA file.
//
// Vector lanes run over query rows. The rows of one (sequence, kv head) are (query head of the
// group, window row), padded to a multiple of `lanes` by repeating the last one. They are stored in
// blocks of `block_rows` (the last one may be `lanes`): row r of block starting at r0, out of nr:
//   queries  f32 [head_dim padded to 4][nr] at r0 * padded head_dim; unscaled
//            or, as pairs, bf16 [padded head_dim / 2][nr][2] in the same number of elements
//   weights  f32 [CKV_SCORE_TILE][nr] at r0 * CKV_SCORE_TILE
#ifndef CKV_SCORE_KERNELS_H
#define CKV_SCORE_KERNELS_H

#include <stdint.h>

enum {
  // Tokens of a tile; a multiple of every micro kernel's tokens. Fixed, so that sums are grouped
  // alike at any thread count. 96 keys of 128 f32 are 48 KiB: they stay in L2 for all row blocks.
  CKV_SCORE_TILE = 96,
  CKV_SCORE_DIM_STEP = 4,  // head_dim is padded with zeros to a multiple of this
};

// One tile of keys against all rows: weights[t][r] = 2^(logit[t][r] - (row_ref[r] - 1/2)), where
// logits are in units of log2. The half makes 2^x come out of a range reduction to [-1/2, 1/2] with
// a mantissa in [1, 2): no subnormals.
typedef struct ckv_score_tile {
  const char *const *key_rows;   // [tokens]
  const char *const *next_rows;  // [next_tokens]: prefetched meanwhile
  int32_t tokens;                // 1 to CKV_SCORE_TILE
  int32_t next_tokens;
  int32_t head_dim;
  int32_t rows;  // padded
  const void *queries;
  void *keys;                  // scratch: [CKV_SCORE_TILE][padded head_dim] f32
  float *weights;              // out
  float *row_ref;              // [rows] out: largest logit + 1/2; with fixed_ref in
  float *row_sum;              // [rows] out: sum of the row's weights; not with fixed_ref
  const int32_t *row_visible;  // [rows] tokens of the tile that a row sees; NULL: all
  float logit_scale;           // logit = q.k * logit_scale without soft-cap (log2(e) is in it)
  float cap_scale;             // with soft-cap: logit = logit_scale * tanh(q.k * cap_scale / ...)
  int32_t capped;
  int32_t fixed_ref;
} ckv_score_tile;

typedef void (*ckv_score_tile_fn)(const ckv_score_tile *tile);

// The kernels of an ISA that do not depend on the key dtype.
typedef struct ckv_score_rows {
  int32_t lanes;
  int32_t block_rows;  // lanes or a multiple
  // Combines the tiles of rows [first, first + count), count a multiple of lanes, in tile order:
  //   row_ref [num_tiles][rows] becomes 2^(ref - max ref) / total, 0 for rows from `used` on;
  //   total[r] = sum over tiles of row_sum * 2^(ref - max ref), NaN if any weight was.
  void (*combine)(float *row_ref, const float *row_sum, int32_t num_tiles, int32_t rows,
                  int32_t used, int32_t first, int32_t count, float *total);
  // mass[t] += sum over r of weights[t][r] * row_weight[r], t < tokens.
  void (*mass)(const float *weights, const float *row_weight, int32_t rows, int32_t tokens,
               float *mass);
} ckv_score_rows;

#endif
