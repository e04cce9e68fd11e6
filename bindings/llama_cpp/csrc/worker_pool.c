#include "worker_pool.h"

// The CPU backend is a library of its own: its functions are asked for by name.
static void *cpu_function(const ckvl_host_api *host, const char *name) {
  ggml_backend_dev_t device = host->ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
  ggml_backend_reg_t backend = device ? host->ggml_backend_dev_backend_reg(device) : NULL;
  return backend ? host->ggml_backend_reg_get_proc_address(backend, name) : NULL;
}

void ckvl_worker_pool_attach(ckvl_worker_pool *pool, const ckvl_host_api *host,
                             struct llama_context *ctx, int32_t num_threads) {
  *pool = (ckvl_worker_pool){0};
  if (num_threads < 2) return;
  __typeof__(&ggml_threadpool_new) make;
  *(void **)&make = cpu_function(host, "ggml_threadpool_new");
  *(void **)&pool->free = cpu_function(host, "ggml_threadpool_free");
  if (!make || !pool->free) return;
  struct ggml_threadpool_params params = host->ggml_threadpool_params_default(num_threads);
  // Between graphs the workers sleep at once: compression runs on the same cores.
  params.poll = 0;
  pool->threads = make(&params);
  if (pool->threads) host->llama_attach_threadpool(ctx, pool->threads, pool->threads);
}

void ckvl_worker_pool_free(ckvl_worker_pool *pool) {
  if (pool->threads) pool->free(pool->threads);
  *pool = (ckvl_worker_pool){0};
}
