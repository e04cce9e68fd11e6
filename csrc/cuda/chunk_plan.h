// Whether chunk scores come in one pass over the keys, how a launch is cut up and where its workspace
// goes. Host only.
#ifndef CKV_CHUNK_PLAN_H
#define CKV_CHUNK_PLAN_H

#include "chunk_args.cuh"
#include "score_plan.h"

struct ChunkPlan {
  ScorePlan score;    // of the two passes: what both have in common
  int32_t positions;  // tokens of a chunk in a tile
  int32_t layers;     // per launch
  bool own_queries;   // read where the caller has them, else packed first
  int64_t units_of_layer;
  ChunkArgs args;  // all but pointers and what depends on a launch's layers
  // Workspace, bytes from its begin. Of all layers: log_sum_exp, unit_scale, packed.
  int64_t counters, maxima, log_sum_exp, unit_scale, packed, sums, bases, end;
};

// false: not on this device, or not for layers of this shape; then there are the two passes.
bool ckv_chunk_plan(const ScoreDevice &device, const ckv_params *params, const ckv_layer *layers,
                    int32_t num_layers, ChunkPlan *plan);

// Where things are in the workspace when there are so many layers, at most so many a launch.
void ckv_chunk_room(const ScoreDevice &device, int32_t num_layers, int32_t most, ChunkPlan *plan);

// What a launch of so many layers is cut into.
void ckv_chunk_cut(const ChunkPlan &plan, const ScoreDevice &device, int32_t num_layers,
                   ChunkArgs *args);

#endif
