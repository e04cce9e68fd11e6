// The engine's compute threads, kept from one graph to the next.
#ifndef CKVL_WORKER_POOL_H
#define CKVL_WORKER_POOL_H

#include "llama_api.h"

typedef struct ckvl_worker_pool {
  struct ggml_threadpool *threads;  // NULL: the engine starts threads anew for each graph
  __typeof__(&ggml_threadpool_free) free;
} ckvl_worker_pool;

// Gives the context threads that stay. Without a pool the engine starts new ones for every token;
// those often begin on the core of the thread that waits for them, and each barrier then costs a
// scheduler's turn. Where the engine has no such call, it goes on as before.
void ckvl_worker_pool_attach(ckvl_worker_pool *pool, const ckvl_host_api *host,
                             struct llama_context *ctx, int32_t num_threads);

// After the context that used it is gone.
void ckvl_worker_pool_free(ckvl_worker_pool *pool);

#endif
