// How a launch of the score kernels is cut up and where its workspace goes. Host only.
#ifndef CKV_SCORE_PLAN_H
#define CKV_SCORE_PLAN_H

#include "score_args.cuh"

struct ScoreDevice {
  int32_t multiprocessors;
  bool hopper;  // wgmma is there
};

struct ScorePlan {
  int32_t layers;  // per launch
  int32_t steps;   // 16-element steps of a row that kernels are built for
  bool copy;       // key rows go to shared memory as they are
  bool bf16;       // products of bf16, else of f16
  bool tensor;     // by the tensor copy engine
  ScoreArgs args;  // all but pointers and layers
  // Workspace, bytes from its begin.
  int64_t counters, maxima, log_sum_exp, unit_scale, packed, partial, end;
};

// false: nothing is built for this head_dim.
bool ckv_score_plan(const ScoreDevice &device, const ckv_params *params, const ckv_layer *layers,
                    int32_t num_layers, ScorePlan *plan);

#endif
