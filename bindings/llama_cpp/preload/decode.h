// A decode call of the host, watched: queries are captured while it runs, and sequences whose prompt
// it ends are compressed after it.
#ifndef CKVP_DECODE_H
#define CKVP_DECODE_H

#include "tracked.h"

int32_t ckvp_decode(ckvp_context *context, struct llama_batch batch);

// The context whose decode call the calling thread is in, NULL: none.
ckvp_context *ckvp_decoding(void);

// The callback that its scheduler is to have now: none while nothing is captured, which costs nothing.
ggml_backend_sched_eval_callback ckvp_callback(const ckvp_context *context);

// The scheduler's eval callback; user_data is the context.
bool ckvp_on_node(struct ggml_tensor *node, bool ask, void *user_data);

// Compresses a sequence to a budget, or says why not. False: it was lost.
bool ckvp_compress(ckvp_context *context, llama_seq_id seq, int32_t budget, bool is_decode);

#endif
