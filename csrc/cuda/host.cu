#include "host.h"

#include <stdarg.h>
#include <stdio.h>

ckv_status ckv_cuda_fail(const ckv_cuda_call *call, ckv_status status, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(call->error, call->error_bytes, format, args);
  va_end(args);
  return status;
}

ckv_status ckv_cuda_check(const ckv_cuda_call *call, cudaError_t error, const char *expected) {
  if (error == cudaSuccess) return CKV_OK;
  cudaGetLastError();  // or the next launch would report it again
  const ckv_status status =
      error == cudaErrorMemoryAllocation ? CKV_ERROR_OUT_OF_MEMORY : CKV_ERROR_ENGINE;
  return ckv_cuda_fail(call, status, "Expected %s on CUDA device %d but found %s (%s)", expected,
                       call->device_index, cudaGetErrorString(error), cudaGetErrorName(error));
}

ckv_cuda_device_scope::ckv_cuda_device_scope(const ckv_cuda_call *call) : status(CKV_OK) {
  int current;
  status = ckv_cuda_check(call, cudaGetDevice(&current), "a current device");
  if (status || current == call->device_index) return;
  status = ckv_cuda_check(call, cudaSetDevice(call->device_index), "to make the device current");
  if (!status) before_ = current;
}

ckv_cuda_device_scope::~ckv_cuda_device_scope() {
  if (before_ >= 0) cudaSetDevice(before_);
}
