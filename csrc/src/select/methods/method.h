// What a method is: how attention becomes token scores, and how token scores become kept indices.
// A new one is a file here, a line in methods.def and a number in chunkkv.h.
#ifndef CKV_METHOD_H
#define CKV_METHOD_H

#include <stdbool.h>
#include <stdint.h>

#include "../../../include/chunkkv.h"

typedef enum ckv_heads {
  CKV_HEADS_NONE,    // no token scores at all
  CKV_HEADS_SHARED,  // one row for all heads of a layer
  CKV_HEADS_PER_KV,  // one row per kv head
} ckv_heads;

// One sequence of a layer, as its token scores are made from attention mass.
typedef struct ckv_finish {
  const ckv_params *params;
  int32_t num_kv_heads;
  int32_t group;      // query heads per kv head
  int32_t window;     // window rows of this sequence: min(window, its length)
  int32_t len;        // tokens that have scores: its length - window
  int32_t stride;     // floats from one head to the next, in mass and in scores
  const float *mass;  // [num_kv_heads, stride], from ckv_score_mass
  float *scores;      // [1 or num_kv_heads, stride]
} ckv_finish;

// One index set to choose: one sequence, one head (or all heads together).
typedef struct ckv_choice {
  const ckv_params *params;
  int32_t kv_len;       // n
  const float *scores;  // [kv_len], NULL for methods without scores
  uint64_t *scratch;    // ckv_choice_scratch(params, kv_len) entries
  int32_t *indices;     // out, ascending, room for ckv_most_kept(params, kv_len)
} ckv_choice;

typedef struct ckv_method_ops {
  ckv_heads score_heads;
  ckv_heads kept_heads;  // never CKV_HEADS_NONE
  // Scores are the attention mass of all queries that are given, for all tokens: score/accumulate.h.
  bool accumulates;
  void (*finish)(const ckv_finish *finish);            // NULL without scores, or if it accumulates
  int32_t (*select)(const ckv_choice *choice);         // returns how many indices
  int64_t (*scratch)(const ckv_params *p, int32_t n);  // entries of scratch; NULL: none
  // Tokens that a layer keeps of n; NULL: params->budget in all of them.
  int32_t (*layer_budget)(const ckv_params *p, int32_t n, int32_t layer, int32_t num_layers);
} ckv_method_ops;

extern const ckv_method_ops ckv_method_full;
extern const ckv_method_ops ckv_method_streaming_llm;
extern const ckv_method_ops ckv_method_snapkv;
extern const ckv_method_ops ckv_method_chunkkv;
extern const ckv_method_ops ckv_method_h2o;
extern const ckv_method_ops ckv_method_pyramidkv;

const ckv_method_ops *ckv_method_get(int32_t method);  // NULL if unknown

// The most indices that params->budget lets one selection keep.
int32_t ckv_most_kept(const ckv_params *params, int32_t kv_len);

#endif
