// The memory of a layer's captured queries: where the layer is on a GPU, the engine's own host memory
// for it, from which copies there are several times as fast.
#ifndef CKVL_QUERY_RING_H
#define CKVL_QUERY_RING_H

#include "capture.h"

// Sets queries and pinned of a new layer whose keys are known. False: no memory.
bool ckvl_query_ring_new(const ckvl_capture *capture, ckvl_layer *layer, size_t bytes);
void ckvl_query_ring_free(const ckvl_capture *capture, ckvl_layer *layer);

#endif
