#include "workspace.h"

#include <algorithm>

#include "stages.h"

// Stages follow each other on the stream and share the workspace.
ckv_status ckv_cuda_workspace_size(const ckv_cuda_call *call, const ckv_params *params,
                                   const ckv_layer *layers, int32_t num_layers, int64_t *least,
                                   int64_t *best) {
  *least = std::max(ckv_cuda_select_bytes(params, layers, num_layers),
                    ckv_cuda_compact_bytes(params, layers, num_layers));
  *least = std::max(*least, CKV_WORKSPACE_HEADER);
  const ckv_status status = ckv_cuda_score_bytes(call, params, layers, num_layers, least);
  *best = *least;
  return status ? status : ckv_cuda_chunk_bytes(call, params, layers, num_layers, best);
}
