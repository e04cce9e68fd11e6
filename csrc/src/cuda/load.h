// libchunkkv_cuda, opened when it is first asked for.
#ifndef CKV_CUDA_LOAD_H
#define CKV_CUDA_LOAD_H

#include "../../cuda/cuda_api.h"

// The library's table, or NULL and in `error` why there is none. The first answer stands.
const ckv_cuda_api *ckv_cuda_load(const char **error);

#endif
