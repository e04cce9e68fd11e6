#include "query_ring.h"

#include <stdlib.h>

#include "places.h"

// Of host memory that the device of the keys reads fast; NULL: there is none.
static ggml_backend_buffer_type_t host_type(const ckvl_capture *capture,
                                            const struct ggml_tensor *keys) {
  const ggml_backend_buffer_type_t own = capture->api->ggml_backend_buffer_get_type(keys->buffer);
#if defined(CKVL_HOST_IS_DEVICE)
  return own;  // a CPU's device has no other memory of the host
#else
  const ggml_backend_dev_t device = own ? capture->api->ggml_backend_buft_get_device(own) : NULL;
  return device ? capture->pins->ggml_backend_dev_host_buffer_type(device) : NULL;
#endif
}

static void pin(const ckvl_capture *capture, ckvl_layer *layer, size_t bytes) {
  if (!capture->pins || !layer->keys->buffer || ckvl_is_host(capture->api, layer->keys)) return;
  const ggml_backend_buffer_type_t type = host_type(capture, layer->keys);
  if (!type) return;
  layer->pinned = capture->pins->ggml_backend_buft_alloc_buffer(type, bytes);
  if (!layer->pinned) return;
  layer->queries = capture->pins->ggml_backend_buffer_get_base(layer->pinned);
}

bool ckvl_query_ring_new(const ckvl_capture *capture, ckvl_layer *layer, size_t bytes) {
  layer->queries = NULL;
  layer->pinned = NULL;
  pin(capture, layer, bytes);
  if (!layer->pinned) layer->queries = malloc(bytes);
  return layer->queries != NULL;
}

void ckvl_query_ring_free(const ckvl_capture *capture, ckvl_layer *layer) {
  if (layer->pinned) {
    capture->pins->ggml_backend_buffer_free(layer->pinned);
  } else {
    free(layer->queries);
  }
  layer->queries = NULL;
  layer->pinned = NULL;
}
