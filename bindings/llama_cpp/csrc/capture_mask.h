// The masks that a capture sees: which cells the newest token attends to.
#ifndef CKVL_CAPTURE_MASK_H
#define CKVL_CAPTURE_MASK_H

#include "capture.h"

// Notes which mask the layer uses, and reads that row of it, once for all layers that share it.
ckv_status ckvl_capture_mask(ckvl_capture *capture, ckvl_layer *layer,
                             const struct ggml_tensor *tensor, int64_t row);

#endif
