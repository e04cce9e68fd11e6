#include "quiet.h"

#include <pthread.h>

#include "log.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local bool is_quiet;
static ggml_log_callback host_callback;
static void *host_data;

static void sink(enum ggml_log_level level, const char *text, void *user_data) {
  if (is_quiet) {
    ckvl_log_sink(level, text, user_data);
  } else if (host_callback) {
    host_callback(level, text, host_data);
  }
}

void ckvp_quiet_begin(const ckvp_host *host) {
  pthread_mutex_lock(&lock);
  is_quiet = true;
  ckvl_log_clear();
  if (!host->llama_log_get || !host->llama_log_set) return;
  host->llama_log_get(&host_callback, &host_data);
  host->llama_log_set(sink, NULL);
}

void ckvp_quiet_end(const ckvp_host *host) {
  if (host->llama_log_get && host->llama_log_set) host->llama_log_set(host_callback, host_data);
  is_quiet = false;
  pthread_mutex_unlock(&lock);
}
