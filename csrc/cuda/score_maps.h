// Descriptions of keys and queries for Hopper's tensor copy engine.
#ifndef CKV_SCORE_MAPS_H
#define CKV_SCORE_MAPS_H

#include <cuda.h>

#include "chunk_args.cuh"
#include "score_plan.h"

struct ScoreMaps {
  CUtensorMap queries;                 // packed: [unit * row_block][packed_dim]
  CUtensorMap keys[CKV_SCORE_LAYERS];  // [batch or block][kv head][token][head_dim]
  int32_t box_rows;                    // tokens of one copy
  // > 0: keys are [block and kv head][8 tokens][panel][token][64], and a copy takes all panels of its
  // rows. Heads are block * block_heads + head.
  int32_t block_heads;
};

struct ChunkMaps {
  // [unit][row][packed_dim], one for all layers, or where the caller has them [batch][q head][row][head_dim].
  CUtensorMap queries[CKV_CHUNK_LAYERS];
  CUtensorMap chunks[CKV_CHUNK_LAYERS];  // [batch][kv head][token of a chunk][chunk][head_dim]
  CUtensorMap rows[CKV_CHUNK_LAYERS];    // [batch][kv head][token][head_dim]
};

// false: the driver does not take them, and keys come another way.
bool ckv_chunk_maps(const ScorePlan &plan, const ChunkArgs &args, const ckv_layer *layers,
                    ChunkMaps *maps);
bool ckv_score_maps(const ScorePlan &plan, const ScoreArgs &args, ScoreMaps *maps);

#endif
