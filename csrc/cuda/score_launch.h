// The score kernels, built in several files: which one runs is decided in score.cu.
#ifndef CKV_SCORE_LAUNCH_H
#define CKV_SCORE_LAUNCH_H

#include "score_plan.h"

// Queues the kernel that `plan` names on `stream`.
cudaError_t ckv_launch_wgmma(const ScorePlan &plan, const ScoreArgs &args, int32_t multiprocessors,
                             cudaStream_t stream);
cudaError_t ckv_launch_mma(const ScorePlan &plan, const ScoreArgs &args, int32_t multiprocessors,
                           cudaStream_t stream);

#endif
