// The score kernels, built in several files: which one runs is decided in score.cu.
#ifndef CKV_SCORE_LAUNCH_H
#define CKV_SCORE_LAUNCH_H

#include "chunk_plan.h"
#include "score_maps.h"

// Queues the kernel that `plan` names on `stream`.
cudaError_t ckv_launch_wgmma(const ScorePlan &plan, const ScoreArgs &args, int32_t multiprocessors,
                             cudaStream_t stream);
cudaError_t ckv_launch_mma(const ScorePlan &plan, const ScoreArgs &args, int32_t multiprocessors,
                           cudaStream_t stream);
cudaError_t ckv_launch_chunks(const ChunkPlan &plan, const ChunkArgs &args, const ChunkMaps &maps,
                              cudaStream_t stream);

// Before any of them, in score.cu: counters to zero and the layers' queries packed.
cudaError_t ckv_launch_prepare(const ScoreArgs &args, bool bf16, const ckv_layer *layers,
                               cudaStream_t stream);
ckv_status ckv_score_device(const ckv_cuda_call *call, ScoreDevice *device);
// How many of the layers, from the first on, have its shape and can share a launch.
int32_t ckv_layers_alike(const ckv_layer *layers, int32_t num_layers);

#endif
