// What looks at the engine's nodes, in the order that it needs.
#include "objects.h"

static bool before(ckv_llama_context *context, struct ggml_tensor *node) {
  const bool hides = ckvl_hiding_before(&context->hiding, node);
  const bool adds = ckvl_accumulator_wants(&context->accumulator, node);
  const bool records = context->recording && ckvl_capture_node(node, true, context->recording);
  return hides || adds || records;
}

// Attention is added up with the mask that it was computed with; what is captured of the mask is the
// engine's own again.
static void after(ckv_llama_context *context, struct ggml_tensor *node) {
  if (ckvl_accumulator_wants(&context->accumulator, node)) {
    ckvl_accumulator_add(&context->accumulator, node, ckvl_hiding_is_active(&context->hiding));
  }
  ckvl_hiding_after(&context->hiding);
  if (context->recording) ckvl_capture_node(node, false, context->recording);
}

bool ckvl_is_watching(const ckv_llama_context *context) {
  return context->recording || context->hiding.is_on || context->accumulator.is_on;
}

bool ckvl_watch_node(ckv_llama_context *context, struct ggml_tensor *node, bool ask) {
  if (ask) return before(context, node);
  after(context, node);
  return true;
}
