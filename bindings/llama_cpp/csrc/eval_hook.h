// Keeps the engine's eval callback away from graphs that nothing is captured of: with one, even if it
// wants no node, the engine waits for each graph and uses no CUDA graphs.
//
// A context's callback is set for good when it is made. But libllama hands it to the scheduler through
// a function of libggml-base, which this library has, too: where libllama is opened after it has been
// made global, libllama calls the one here. ELF systems alone; elsewhere the callback is always there.
#ifndef CKVL_EVAL_HOOK_H
#define CKVL_EVAL_HOOK_H

#include "objects.h"

// Before libllama is opened.
void ckvl_hook_install(void);

// The callback of this library's contexts; user_data is the context.
bool ckvl_on_node(struct ggml_tensor *node, bool ask, void *user_data);

// Before a decode call: the scheduler gets the callback if something is recorded, else none. The engine
// itself does that for new graphs alone, not for those that it uses again.
void ckvl_hook_set(ckv_llama_context *context);

// The context goes.
void ckvl_hook_forget(ckv_llama_context *context);

#endif
