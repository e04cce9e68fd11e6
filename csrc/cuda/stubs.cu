// Stages that are still to come.
#include "host.h"
#include "stages.h"

static ckv_status missing(const ckv_cuda_call *call, const char *stage) {
  return ckv_cuda_fail(call, CKV_ERROR_UNSUPPORTED, "Expected the stage %s but found a stub",
                       stage);
}

ckv_status ckv_cuda_workspace_size(const ckv_cuda_call *call, const ckv_params *, const ckv_layer *,
                                   int32_t, int64_t *) {
  return missing(call, "workspace_size");
}

ckv_status ckv_cuda_score(const ckv_cuda_call *call, const ckv_params *, const ckv_layer *, int32_t,
                          const ckv_scores *) {
  return missing(call, "score");
}

ckv_status ckv_cuda_chunk_scores(const ckv_cuda_call *call, const ckv_params *, const ckv_scores *,
                                 float *) {
  return missing(call, "chunk_scores");
}

ckv_status ckv_cuda_select(const ckv_cuda_call *call, const ckv_params *, const ckv_scores *,
                           int32_t, const ckv_kept *) {
  return missing(call, "select");
}

ckv_status ckv_cuda_compact(const ckv_cuda_call *call, const ckv_kv_view *const *,
                            const ckv_kv_view *const *, const ckv_kept *const *, int32_t) {
  return missing(call, "compact");
}
