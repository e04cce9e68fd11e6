#include "workspace.h"

#include <algorithm>

#include "stages.h"

// Stages follow each other on the stream and share the workspace.
ckv_status ckv_cuda_workspace_size(const ckv_cuda_call *call, const ckv_params *params,
                                   const ckv_layer *layers, int32_t num_layers, int64_t *bytes) {
  *bytes = std::max(ckv_cuda_select_bytes(params, layers, num_layers),
                    ckv_cuda_compact_bytes(params, layers, num_layers));
  *bytes = std::max(*bytes, CKV_WORKSPACE_HEADER);
  const ckv_status status = ckv_cuda_score_bytes(call, params, layers, num_layers, bytes);
  return status ? status : ckv_cuda_chunk_bytes(call, params, layers, num_layers, bytes);
}
