#include "staged.h"

#include <stdlib.h>

#include "grow.h"
#include "places.h"

void ckvl_staged_free(ckvl_staged *staged) {
  free(staged->copy);
  *staged = (ckvl_staged){0};
}

ckv_status ckvl_stage(const ckvl_api *api, const struct ggml_tensor *tensor, size_t offset,
                      size_t bytes, ckvl_staged *staged, ckvl_error *error) {
  const struct ggml_tensor *base = tensor;
  while (base->view_src) base = base->view_src;
  if (!base->buffer || !tensor->data) {
    return ckvl_fail(error, CKV_ERROR_UNSUPPORTED, "Expected tensor '%s' in memory but it has none",
                     tensor->name);
  }
  staged->bytes = bytes;
  if (ckvl_is_host(api, base)) {
    staged->data = (char *)tensor->data + offset;
    return CKV_OK;
  }
  staged->data = staged->copy = ckvl_grow(staged->copy, &staged->capacity, bytes);
  if (!staged->copy) return ckvl_fail_memory(error, bytes);
  api->ggml_backend_tensor_get(tensor, staged->copy, offset, bytes);
  return CKV_OK;
}

void ckvl_unstage(const ckvl_api *api, struct ggml_tensor *tensor, size_t offset, size_t bytes,
                  const ckvl_staged *staged) {
  if (staged->data != staged->copy) return;
  api->ggml_backend_tensor_set(tensor, staged->copy, offset, bytes);
}
