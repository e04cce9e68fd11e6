#include "places.h"

#include <string.h>

#define ALIGNMENT 256
// Most that stays on a device from step to step; in tests not what selecting takes.
#if defined(CKVL_HOST_IS_DEVICE)
#  define STAYING_BYTES ((size_t)128 << 10)
#else
#  define STAYING_BYTES ((size_t)96 << 20)
#endif

static void release(ckvl_devices *devices, int32_t index) {
  if (devices->memory[index]) ckv_device_free(devices->cuda[index], devices->memory[index]);
  devices->memory[index] = NULL;
  devices->bytes[index] = 0;
}

// A block of at least that many bytes.
static ckv_status reserve(ckvl_devices *devices, int32_t index, size_t bytes) {
  if (devices->bytes[index] >= bytes) return CKV_OK;
  release(devices, index);
  const ckv_status status =
      ckv_device_alloc(devices->cuda[index], (int64_t)bytes, &devices->memory[index]);
  if (!status) devices->bytes[index] = bytes;
  return status;
}

void ckvl_devices_free(ckvl_devices *devices) {
  for (int32_t i = 0; i < CKVL_MAX_DEVICES; i++) {
    release(devices, i);
    ckv_context_free(devices->cuda[i]);
  }
  *devices = (ckvl_devices){0};
}

bool ckvl_is_host(const ckvl_api *api, const struct ggml_tensor *tensor) {
#if defined(CKVL_HOST_IS_DEVICE)
  // A test's engine on the CPU stands for one on a GPU.
  (void)api;
  (void)tensor;
  return false;
#else
  return api->ggml_backend_buffer_is_host(tensor->buffer);
#endif
}

static ckv_status open_device(ckvl_place *place, ckvl_devices *devices, ckvl_error *error) {
  if (place->index >= CKVL_MAX_DEVICES) {
    return ckvl_fail(error, CKV_ERROR_UNSUPPORTED, "Expected a CUDA device of 0 to %d but found %d",
                     CKVL_MAX_DEVICES - 1, place->index);
  }
  ckv_context **context = &devices->cuda[place->index];
  if (!*context) {
    ckv_context_params params;
    ckv_context_default_params(&params);
    params.device = CKV_CUDA;
    params.device_index = place->index;
    const ckv_status status = ckv_context_create(&params, context);
    if (status) {
      return ckvl_fail(error, status, "Expected to use CUDA device %d but found: %s", place->index,
                       ckv_status_name(status));
    }
  }
  place->ckv = *context;
  return CKV_OK;
}

ckv_status ckvl_place_find(ckvl_place *place, const ckvl_api *api, const ckvl_layer *layer,
                           ckv_context *host, ckvl_devices *devices, ckvl_error *error) {
  const struct ggml_tensor *const tensors[] = {layer->keys, layer->values};
  *place = (ckvl_place){.device = CKV_CPU, .ckv = host, .devices = devices};
  for (int32_t side = 0; side < 2; side++) {
    const struct ggml_tensor *tensor = tensors[side];
    int32_t device = CKV_CPU, index = 0;
    if (!tensor->buffer || !tensor->data) {
      return ckvl_fail(error, CKV_ERROR_UNSUPPORTED,
                       "Expected a KV cache in memory but that of layer %d has none", layer->index);
    }
    if (!ckvl_is_host(api, tensor)) {
      ckv_device_find(tensor->data, &device, &index);
      if (device == CKV_CPU) {
        char why[256];
        const bool usable = ckv_device_describe(CKV_CUDA, 0, why, sizeof why) == CKV_OK;
        return ckvl_fail(error, CKV_ERROR_UNSUPPORTED,
                         "Expected the KV cache in host memory or on a CUDA device but that of "
                         "layer %d is in '%s'%s%s",
                         layer->index, api->ggml_backend_buffer_name(tensor->buffer),
                         usable ? "" : ": ", usable ? "" : why);
      }
    }
    if (side == 1 && (device != place->device || index != place->index)) {
      return ckvl_fail(error, CKV_ERROR_UNSUPPORTED,
                       "Expected a layer's keys and values on one device but those of layer %d are "
                       "on two",
                       layer->index);
    }
    place->device = device;
    place->index = index;
  }
  return place->device == CKV_CPU ? CKV_OK : open_device(place, devices, error);
}

static ckv_status fail_place(const ckvl_place *place, ckv_status status, ckvl_error *error) {
  return ckvl_fail(error, status, "CUDA device %d: %s", place->index,
                   ckv_context_error(place->ckv));
}

size_t ckvl_place_round(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

void *ckvl_place_take(ckvl_place *place, size_t bytes) {
  uint8_t *const at = (uint8_t *)place->memory + place->used;
  place->used += ckvl_place_round(bytes);
  return at;
}

ckv_status ckvl_place_begin(ckvl_place *place, size_t bytes, int64_t workspace,
                            const int32_t *cells, int32_t count, ckvl_error *error) {
  place->cells = cells;
  if (place->device == CKV_CPU) return CKV_OK;
  const size_t list = sizeof *cells * (size_t)count;
  place->bytes = bytes + ckvl_place_round(list) + ckvl_place_round((size_t)workspace);
  place->used = 0;
  ckv_status status = reserve(place->devices, place->index, place->bytes);
  if (!status) {
    place->memory = place->devices->memory[place->index];
    status =
        ckv_context_set_workspace(place->ckv, ckvl_place_take(place, (size_t)workspace), workspace);
  }
  if (status) {
    fail_place(place, status, error);
    ckvl_place_end(place);
    return status;
  }
  if (count == 0) return CKV_OK;
  place->cells = ckvl_place_take(place, list);
  return ckvl_place_put(place, (void *)(uintptr_t)place->cells, cells, list, error);
}

ckv_status ckvl_place_finish(ckvl_place *place, ckvl_error *error) {
  const ckv_status status = ckv_context_finish(place->ckv);
  return status ? fail_place(place, status, error) : CKV_OK;
}

ckv_status ckvl_place_put(ckvl_place *place, void *to, const void *from, size_t bytes,
                          ckvl_error *error) {
  const ckv_status status =
      ckv_device_copy(place->ckv, to, from, (int64_t)bytes, CKV_COPY_TO_DEVICE);
  return status ? fail_place(place, status, error) : CKV_OK;
}

ckv_status ckvl_place_get(ckvl_place *place, void *to, const void *from, size_t bytes,
                          ckvl_error *error) {
  const ckv_status status = ckv_device_copy(place->ckv, to, from, (int64_t)bytes, CKV_COPY_TO_HOST);
  return status ? fail_place(place, status, error) : CKV_OK;
}

void ckvl_place_end(ckvl_place *place) {
  if (place->memory) {
    ckv_context_finish(place->ckv);
    ckv_context_set_workspace(place->ckv, NULL, 0);
    if (place->bytes > STAYING_BYTES) release(place->devices, place->index);
  }
  place->memory = NULL;
  place->bytes = place->used = 0;
  place->cells = NULL;
}
