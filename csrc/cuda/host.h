// What every host function of libchunkkv_cuda needs: errors in words.
#ifndef CKV_CUDA_HOST_H
#define CKV_CUDA_HOST_H

#include <cuda_runtime.h>

#include "cuda_api.h"

// Writes call->error and returns `status`. Style: what was expected and what was found.
ckv_status ckv_cuda_fail(const ckv_cuda_call *call, ckv_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// CKV_OK for cudaSuccess; else words. `expected` reads after "Expected": "the kernel to start".
ckv_status ckv_cuda_check(const ckv_cuda_call *call, cudaError_t error, const char *expected);

inline cudaStream_t ckv_cuda_stream(const ckv_cuda_call *call) {
  return static_cast<cudaStream_t>(call->stream);
}

// Makes the call's device the current one, and the caller's again at the end.
class ckv_cuda_device_scope {
 public:
  explicit ckv_cuda_device_scope(const ckv_cuda_call *call);
  ~ckv_cuda_device_scope();
  ckv_cuda_device_scope(const ckv_cuda_device_scope &) = delete;
  ckv_cuda_device_scope &operator=(const ckv_cuda_device_scope &) = delete;

  ckv_status status;

 private:
  int before_ = -1;  // -1: nothing to restore
};

// Queues a kernel that begins with ckv_chain(): on Hopper and later it starts early. Others would
// refuse to.
template <typename... Parameters, typename... Arguments>
cudaError_t ckv_cuda_launch(void (*kernel)(Parameters...), int64_t blocks, int threads, int bytes,
                            cudaStream_t stream, const Arguments &...arguments) {
  int device = 0, major = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (!error) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error) return error;
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(bytes);
  config.stream = stream;
  config.attrs = &early;
  // Of others there is no machine code: what the driver makes of compute_80 would not wait.
  config.numAttrs = major == 9 || major == 10 || major == 12 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

#endif
