#include <stdlib.h>
#include <string.h>

#include "eval_hook.h"
#include "library.h"
#include "log.h"
#include "objects.h"

uint32_t ckv_llama_abi_version(void) { return CKV_LLAMA_ABI_VERSION; }

const char *ckv_llama_release(void) { return CKV_LLAMA_VERSION; }

ckv_llama_engine *ckv_llama_engine_new(void) {
  ckv_llama_engine *engine = calloc(1, sizeof *engine);
  if (engine) atomic_init(&engine->references, 1);
  return engine;
}

void ckvl_engine_retain(ckv_llama_engine *engine) { atomic_fetch_add(&engine->references, 1); }

void ckv_llama_engine_free(ckv_llama_engine *engine) {
  // The library itself stays open, see library.h.
  if (engine && atomic_fetch_sub(&engine->references, 1) == 1) free(engine);
}

const char *ckv_llama_engine_error(const ckv_llama_engine *engine) { return engine->error.text; }

const char *ckv_llama_engine_version(const ckv_llama_engine *engine) { return engine->version; }

// Params structs are passed by value, so only the very release they were compiled for will do.
// A build of unreleased source says "0.5.0-dev": the part before the dash counts.
static bool same_release(const char *found) {
  const size_t length = strcspn(CKV_LLAMA_VERSION, "-");
  return strcspn(found, "-") == length && strncmp(found, CKV_LLAMA_VERSION, length) == 0;
}

static ckv_status find_symbols(ckv_llama_engine *engine, void *library, const char *path) {
  const char *missing;
  // The version first: of another release other symbols may be missing.
  __typeof__(&llama_version) version = NULL;
  void *const symbol = ckvl_library_symbol(library, "llama_version");
  memcpy(&version, &symbol, sizeof version);
  const char *const found = version ? version() : "a library without llama_version()";
  if (!version || !same_release(found)) {
    return ckvl_fail(&engine->error, CKV_ERROR_UNSUPPORTED,
                     "Expected llama.cpp %s, the release of the headers that the bridge was "
                     "compiled with, but found %s at %s",
                     CKV_LLAMA_VERSION, found, path);
  }
  if (!ckvl_api_fill(&engine->api, ckvl_library_symbol, library, &missing) ||
      !ckvl_host_api_fill(&engine->host, ckvl_library_symbol, library, &missing)) {
    return ckvl_fail(&engine->error, CKV_ERROR_UNSUPPORTED,
                     "Expected %s to have the function %s but found none", path, missing);
  }
  strncpy(engine->version, found, sizeof engine->version - 1);
  return CKV_OK;
}

ckv_status ckv_llama_engine_open(ckv_llama_engine *engine, const char *path,
                                 const char *directory) {
  engine->error.text[0] = '\0';
  char reason[512];
  ckvl_hook_install();
  void *const library = ckvl_library_open(path, reason, sizeof reason);
  if (!library) {
    return ckvl_fail(&engine->error, CKV_ERROR_ENGINE,
                     "Expected %s to be a loadable libllama but found: %s", path, reason);
  }
  const ckv_status status = find_symbols(engine, library, path);
  if (status) return status;
  ckvl_log_clear();
  engine->host.llama_log_set(ckvl_log_sink, NULL);
  // Loading the backends twice would register each device twice.
  if (!engine->host.ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU)) {
    engine->host.ggml_backend_load_all_from_path(directory);
  }
  if (!engine->host.ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU)) {
    return ckvl_fail(&engine->error, CKV_ERROR_ENGINE,
                     "Expected a CPU backend in %s but found none: %s", directory, ckvl_log_text());
  }
  engine->host.llama_backend_init();
  engine->is_open = true;
  return CKV_OK;
}
