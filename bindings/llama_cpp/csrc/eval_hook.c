#if defined(__linux__) && !defined(_GNU_SOURCE)
#  define _GNU_SOURCE
#endif
// The functions below are the engine's own.
#define GGML_BACKEND_SHARED
#define GGML_BACKEND_BUILD
#include "eval_hook.h"

bool ckvl_on_node(struct ggml_tensor *node, bool ask, void *user_data) {
  return ckvl_watch_node(user_data, node, ask);
}

void ckvl_hook_set(ckv_llama_context *context) {
  const ggml_backend_sched_t scheduler = atomic_load(&context->scheduler);
  if (!scheduler) return;
  context->model->engine->host.ggml_backend_sched_set_eval_callback(
      scheduler, ckvl_is_watching(context) ? ckvl_on_node : NULL, context);
}

#if defined(__linux__)

#  include <dlfcn.h>
#  include <pthread.h>
#  include <string.h>

// Contexts whose scheduler is known.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static ckv_llama_context *watched;

void ckvl_hook_install(void) {
  Dl_info self;
  if (!dladdr((const void *)&watched, &self) || !self.dli_fname) return;
  // Never closed: the engine refers to it from now on.
  dlopen(self.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
}

// The function that the caller would have called without this library: another copy of the engine
// has its own. A program cannot be opened as a library: what it calls is the next in its order.
static void *find_own(const void *caller, const char *name) {
  Dl_info info;
  void *const library = dladdr(caller, &info) && info.dli_fname
                            ? dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD)
                            : NULL;
  void *const found = dlsym(library ? library : RTLD_NEXT, name);
  if (library) dlclose(library);
  return found;
}

static void watch(ckv_llama_context *context, ggml_backend_sched_t scheduler) {
  pthread_mutex_lock(&lock);
  if (!atomic_load(&context->scheduler)) {
    context->next_watched = watched;
    watched = context;
  }
  atomic_store(&context->scheduler, scheduler);
  pthread_mutex_unlock(&lock);
}

__attribute__((visibility("default"))) void ggml_backend_sched_set_eval_callback(
    ggml_backend_sched_t sched, ggml_backend_sched_eval_callback callback, void *user_data) {
  if (callback == ckvl_on_node) {
    watch(user_data, sched);
    ckvl_hook_set(user_data);
    return;
  }
  __typeof__(&ggml_backend_sched_set_eval_callback) own;
  void *const symbol =
      find_own(__builtin_return_address(0), "ggml_backend_sched_set_eval_callback");
  memcpy(&own, &symbol, sizeof own);
  if (own && own != ggml_backend_sched_set_eval_callback) own(sched, callback, user_data);
}

// Forgets the context, or that of the scheduler.
static void unwatch(const ckv_llama_context *context, ggml_backend_sched_t scheduler) {
  pthread_mutex_lock(&lock);
  ckv_llama_context **link = &watched;
  while (*link && *link != context &&
         (!scheduler || atomic_load(&(*link)->scheduler) != scheduler)) {
    link = &(*link)->next_watched;
  }
  ckv_llama_context *const found = *link;
  if (found) {
    *link = found->next_watched;
    atomic_store(&found->scheduler, NULL);
  }
  pthread_mutex_unlock(&lock);
}

void ckvl_hook_forget(ckv_llama_context *context) { unwatch(context, NULL); }

__attribute__((visibility("default"))) void ggml_backend_sched_free(ggml_backend_sched_t sched) {
  unwatch(NULL, sched);
  __typeof__(&ggml_backend_sched_free) own;
  void *const symbol = find_own(__builtin_return_address(0), "ggml_backend_sched_free");
  memcpy(&own, &symbol, sizeof own);
  if (own && own != ggml_backend_sched_free) own(sched);
}

#else

void ckvl_hook_install(void) {}

void ckvl_hook_forget(ckv_llama_context *context) { (void)context; }

#endif
