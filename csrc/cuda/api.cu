// The table of cuda_api.h: what is not a stage is here.
#include <stdio.h>

#include "device_view.cuh"
#include "host.h"
#include "stages.h"

namespace {

constexpr int64_t HEADER_BYTES = 4096;

// An entry of the table: `Stage` with its device current.
template <auto Stage, typename... Args>
ckv_status on_device(const ckv_cuda_call *call, Args... args) {
  const ckv_cuda_device_scope scope(call);
  return scope.status ? scope.status : Stage(call, args...);
}

int32_t no_device(char *error, size_t error_bytes, cudaError_t found) {
  int driver = 0;
  const bool has_driver = cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0;
  cudaGetLastError();
  if (!has_driver) {
    snprintf(error, error_bytes, "Expected an NVIDIA driver for CUDA %d.%d or newer but found none",
             CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
  } else if (found == cudaErrorInsufficientDriver) {
    snprintf(error, error_bytes,
             "Expected an NVIDIA driver for CUDA %d.%d or newer but found one for %d.%d",
             CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10, driver / 1000, driver % 1000 / 10);
  } else {
    snprintf(error, error_bytes, "Expected a CUDA device but found %s (%s)",
             found == cudaSuccess ? "none" : cudaGetErrorString(found), cudaGetErrorName(found));
  }
  return -1;
}

int32_t device_count(char *error, size_t error_bytes) {
  int count = 0;
  const cudaError_t found = cudaGetDeviceCount(&count);
  if (found == cudaSuccess && count > 0) return count;
  cudaGetLastError();
  return no_device(error, error_bytes, found);
}

ckv_status describe(const ckv_cuda_call *call, ckv_cuda_device *device) {
  cudaDeviceProp properties;
  const ckv_status status = ckv_cuda_check(
      call, cudaGetDeviceProperties(&properties, call->device_index), "the device's properties");
  if (status) return status;
  *device = {};
  snprintf(device->name, sizeof device->name, "%.127s", properties.name);
  device->memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  device->compute_major = properties.major;
  device->compute_minor = properties.minor;
  device->multiprocessors = properties.multiProcessorCount;
  int version = 0;
  cudaDriverGetVersion(&version);
  device->driver_version = version;
  return CKV_OK;
}

int32_t find(const void *memory) {
  cudaPointerAttributes found;
  const cudaError_t error = cudaPointerGetAttributes(&found, memory);
  if (error != cudaSuccess) cudaGetLastError();
  const bool on_device = error == cudaSuccess && (found.type == cudaMemoryTypeDevice ||
                                                  found.type == cudaMemoryTypeManaged);
  return on_device ? found.device : -1;
}

ckv_status allocate(const ckv_cuda_call *call, int64_t bytes, void **memory) {
  *memory = nullptr;
  const cudaError_t error = cudaMalloc(memory, static_cast<size_t>(bytes));
  if (error == cudaSuccess) return CKV_OK;
  char expected[64];
  snprintf(expected, sizeof expected, "%lld free bytes", static_cast<long long>(bytes));
  return ckv_cuda_check(call, error, expected);
}

ckv_status release(const ckv_cuda_call *call, void *memory) {
  return ckv_cuda_check(call, cudaFree(memory), "to free memory");
}

ckv_status copy(const ckv_cuda_call *call, void *to, const void *from, int64_t bytes,
                int32_t kind) {
  static constexpr cudaMemcpyKind KINDS[] = {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost,
                                             cudaMemcpyDeviceToDevice};
  return ckv_cuda_check(
      call,
      cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), KINDS[kind], ckv_cuda_stream(call)),
      "to copy memory");
}

ckv_status synchronize(const ckv_cuda_call *call) {
  return ckv_cuda_check(call, cudaStreamSynchronize(ckv_cuda_stream(call)),
                        "the queued work to end well");
}

ckv_status prepare(const ckv_cuda_call *call) {
  if (!call->workspace || call->workspace_bytes < HEADER_BYTES) {
    return ckv_cuda_fail(call, CKV_ERROR_INVALID_ARGUMENT,
                         "Expected a workspace of at least %lld bytes but found %lld",
                         static_cast<long long>(HEADER_BYTES),
                         static_cast<long long>(call->workspace ? call->workspace_bytes : 0));
  }
  return ckv_cuda_check(call,
                        cudaMemsetAsync(call->workspace, 0, HEADER_BYTES, ckv_cuda_stream(call)),
                        "to clear the workspace's header");
}

ckv_status fault(const ckv_cuda_call *call) {
  uint32_t bits = 0;
  ckv_status status = CKV_OK;
  if (call->workspace) {
    status = copy(call, &bits, call->workspace, sizeof bits, CKV_CUDA_TO_HOST);
  }
  if (!status) status = synchronize(call);
  if (status || bits == 0) return status;
  status =
      ckv_cuda_check(call, cudaMemsetAsync(call->workspace, 0, sizeof bits, ckv_cuda_stream(call)),
                     "to clear the fault");
  if (status) return status;
  if (bits & CKV_FAULT_BLOCK_TABLE) {
    return ckv_cuda_fail(call, CKV_ERROR_OUT_OF_BOUNDS,
                         "Expected entries of block_table below num_blocks but found one outside");
  }
  if (bits & CKV_FAULT_KEPT) {
    return ckv_cuda_fail(call, CKV_ERROR_OUT_OF_BOUNDS,
                         "Expected kept indices that rise inside their sequence but found others");
  }
  return ckv_cuda_fail(call, CKV_ERROR_NUMERIC,
                       "Expected finite attention but found NaN in queries, keys or scores, or a "
                       "row of logits that are all -inf");
}

const ckv_cuda_api API = {
    CKV_CUDA_API_VERSION,
    sizeof(ckv_cuda_api),
    device_count,
    describe,
    find,
    on_device<allocate>,
    on_device<release>,
    on_device<copy>,
    on_device<synchronize>,
    on_device<ckv_cuda_workspace_size>,
    on_device<prepare>,
    on_device<ckv_cuda_score>,
    on_device<ckv_cuda_chunk_scores>,
    on_device<ckv_cuda_score_chunks>,
    on_device<ckv_cuda_select>,
    on_device<ckv_cuda_choose>,
    on_device<ckv_cuda_compact>,
    on_device<fault>,
};

}  // namespace

extern "C" __attribute__((visibility("default"))) const ckv_cuda_api *ckv_cuda_api_get(
    uint32_t version) {
  return version == CKV_CUDA_API_VERSION ? &API : nullptr;
}
