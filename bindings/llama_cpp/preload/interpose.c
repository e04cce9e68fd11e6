// The engine's functions that this library stands in for. Each calls the real one, found at run
// time, and notes what the call means for the sequences.
#define LLAMA_SHARED
#define LLAMA_BUILD
#define GGML_SHARED
#define GGML_BUILD
#define GGML_BACKEND_SHARED
#define GGML_BACKEND_BUILD
#include <stdatomic.h>
#include <string.h>

#include "decode.h"
#include "interpose.h"
#include "libllama.h"
#include "say.h"
#include "settings.h"

// NULL: no libllama is loaded. Calls still lead here, of programs with a shared ggml alone, or where
// llama.cpp is part of another shared object: they are passed on.
static const ckvp_host *real(void) {
  const ckvp_host *host = ckvp_host_get();
  static atomic_bool said;
  if (host && !host->is_complete && !atomic_exchange(&said, true)) {
    ckvp_say(CKVP_WARN, "nothing is compressed: this llama.cpp has no %s", host->missing);
  }
  return host;
}

// Calls what the caller would have called without this library; `otherwise` where that is nothing.
#define PASS_ON(name, otherwise, ...)                                          \
  do {                                                                         \
    void *const symbol = ckvp_next_symbol(#name, __builtin_return_address(0)); \
    __typeof__(&CKVP_FN(name)) next;                                           \
    memcpy(&next, &symbol, sizeof next);                                       \
    return next ? next(__VA_ARGS__) : (otherwise);                             \
  } while (0)

#define PASS_ON_VOID(name, ...)                                                \
  do {                                                                         \
    void *const symbol = ckvp_next_symbol(#name, __builtin_return_address(0)); \
    __typeof__(&CKVP_FN(name)) next;                                           \
    memcpy(&next, &symbol, sizeof next);                                       \
    if (next) next(__VA_ARGS__);                                               \
    return;                                                                    \
  } while (0)

static atomic_bool has_decoded;

// The engine computes, but nobody has called llama_decode here.
static void note_computing(void) {
  static atomic_bool said;
  if (atomic_load(&has_decoded) || atomic_exchange(&said, true)) return;
  ckvp_say(CKVP_WARN,
           "nothing is compressed: this program does not call llama_decode by name, as those of "
           "llama.cpp do up to v0.5");
}

static ckvp_context *tracked(const ckvp_host *host, llama_memory_t memory) {
  return host && host->is_complete ? ckvp_tracked(memory) : NULL;
}

static ckvp_context *tracked_context(const ckvp_host *host, struct llama_context *ctx) {
  return host && host->is_complete ? ckvp_tracked_context(ctx) : NULL;
}

// A state may be a compacted one before the context has decoded anything.
static ckvp_context *restored_context(const ckvp_host *host, struct llama_context *ctx) {
  return host && host->is_complete && ckvp_settings_get()->is_on ? ckvp_track(host, ctx) : NULL;
}

void CKVP_FN(ggml_backend_sched_set_eval_callback)(ggml_backend_sched_t sched,
                                                   ggml_backend_sched_eval_callback callback,
                                                   void *user_data) {
  const ckvp_host *host = real();
  if (!host || !host->ggml_backend_sched_set_eval_callback) {
    PASS_ON_VOID(ggml_backend_sched_set_eval_callback, sched, callback, user_data);
  }
  ckvp_context *context = ckvp_decoding();
  // A host that watches its own graphs goes on doing so.
  if (context) atomic_store(&context->scheduler, callback ? NULL : sched);
  if (!context) note_computing();
  if (context && !callback) {
    callback = ckvp_callback(context);
    user_data = context;
  }
  host->ggml_backend_sched_set_eval_callback(sched, callback, user_data);
}

void CKVP_FN(ggml_backend_sched_free)(ggml_backend_sched_t sched) {
  const ckvp_host *host = real();
  if (!host || !host->ggml_backend_sched_free) {
    PASS_ON_VOID(ggml_backend_sched_free, sched);
  }
  ckvp_forget_scheduler(sched);
  host->ggml_backend_sched_free(sched);
}

int32_t CKVP_FN(llama_decode)(struct llama_context *ctx, struct llama_batch batch) {
  const ckvp_host *host = real();
  if (!host || !host->llama_decode) {
    PASS_ON(llama_decode, -1, ctx, batch);
  }
  atomic_store(&has_decoded, true);
  const bool is_on = host->is_complete && ckvp_settings_get()->is_on && batch.n_tokens > 0;
  ckvp_context *context = is_on ? ckvp_track(host, ctx) : NULL;
  if (!context || context->is_unsuitable) return host->llama_decode(ctx, batch);
  return ckvp_decode(context, batch);
}

void CKVP_FN(llama_free)(struct llama_context *ctx) {
  const ckvp_host *host = real();
  if (!host || !host->llama_free) {
    PASS_ON_VOID(llama_free, ctx);
  }
  ckvp_untrack(ctx);
  host->llama_free(ctx);
}

void CKVP_FN(llama_memory_clear)(llama_memory_t memory, bool data) {
  const ckvp_host *host = real();
  if (!host || !host->llama_memory_clear) {
    PASS_ON_VOID(llama_memory_clear, memory, data);
  }
  host->llama_memory_clear(memory, data);
  ckvp_context *context = tracked(host, memory);
  if (context) ckvp_note_removed(context, -1, -1, -1);
}

bool CKVP_FN(llama_memory_seq_rm)(llama_memory_t memory, llama_seq_id seq, llama_pos p0,
                                  llama_pos p1) {
  const ckvp_host *host = real();
  if (!host || !host->api.llama_memory_seq_rm) {
    PASS_ON(llama_memory_seq_rm, false, memory, seq, p0, p1);
  }
  const bool removed = host->api.llama_memory_seq_rm(memory, seq, p0, p1);
  ckvp_context *context = tracked(host, memory);
  if (context && removed) ckvp_note_removed(context, seq, p0, p1);
  return removed;
}

void CKVP_FN(llama_memory_seq_cp)(llama_memory_t memory, llama_seq_id from, llama_seq_id to,
                                  llama_pos p0, llama_pos p1) {
  const ckvp_host *host = real();
  if (!host || !host->llama_memory_seq_cp) {
    PASS_ON_VOID(llama_memory_seq_cp, memory, from, to, p0, p1);
  }
  host->llama_memory_seq_cp(memory, from, to, p0, p1);
  ckvp_context *context = tracked(host, memory);
  if (context) ckvp_note_copied(context, from, to);
}

void CKVP_FN(llama_memory_seq_keep)(llama_memory_t memory, llama_seq_id seq) {
  const ckvp_host *host = real();
  if (!host || !host->llama_memory_seq_keep) {
    PASS_ON_VOID(llama_memory_seq_keep, memory, seq);
  }
  host->llama_memory_seq_keep(memory, seq);
  ckvp_context *context = tracked(host, memory);
  if (context) ckvp_note_kept(context, seq);
}

void CKVP_FN(llama_memory_seq_add)(llama_memory_t memory, llama_seq_id seq, llama_pos p0,
                                   llama_pos p1, llama_pos delta) {
  const ckvp_host *host = real();
  if (!host || !host->llama_memory_seq_add) {
    PASS_ON_VOID(llama_memory_seq_add, memory, seq, p0, p1, delta);
  }
  host->llama_memory_seq_add(memory, seq, p0, p1, delta);
  ckvp_context *context = tracked(host, memory);
  if (context) ckvp_note_moved(context, seq, p0, p1, delta);
}

void CKVP_FN(llama_memory_seq_div)(llama_memory_t memory, llama_seq_id seq, llama_pos p0,
                                   llama_pos p1, int divisor) {
  const ckvp_host *host = real();
  if (!host || !host->llama_memory_seq_div) {
    PASS_ON_VOID(llama_memory_seq_div, memory, seq, p0, p1, divisor);
  }
  host->llama_memory_seq_div(memory, seq, p0, p1, divisor);
  ckvp_context *context = tracked(host, memory);
  if (context) ckvp_note_divided(context, seq);
}

llama_pos CKVP_FN(llama_memory_seq_pos_min)(llama_memory_t memory, llama_seq_id seq) {
  const ckvp_host *host = real();
  if (!host || !host->llama_memory_seq_pos_min) {
    PASS_ON(llama_memory_seq_pos_min, -1, memory, seq);
  }
  const llama_pos found = host->llama_memory_seq_pos_min(memory, seq);
  const ckvp_context *context = tracked(host, memory);
  return context ? ckvp_first_position(context, seq, found) : found;
}

size_t CKVP_FN(llama_state_seq_get_data_ext)(struct llama_context *ctx, uint8_t *data, size_t size,
                                             llama_seq_id seq, llama_state_seq_flags flags) {
  const ckvp_host *host = real();
  if (!host || !host->api.llama_state_seq_get_data_ext) {
    PASS_ON(llama_state_seq_get_data_ext, 0, ctx, data, size, seq, flags);
  }
  ckvp_context *context = tracked_context(host, ctx);
  if (context && (flags & LLAMA_STATE_SEQ_FLAGS_ON_DEVICE)) context->keeps_device_states = true;
  return host->api.llama_state_seq_get_data_ext(ctx, data, size, seq, flags);
}

size_t CKVP_FN(llama_state_seq_set_data_ext)(struct llama_context *ctx, const uint8_t *data,
                                             size_t size, llama_seq_id seq,
                                             llama_state_seq_flags flags) {
  const ckvp_host *host = real();
  if (!host || !host->api.llama_state_seq_set_data_ext) {
    PASS_ON(llama_state_seq_set_data_ext, 0, ctx, data, size, seq, flags);
  }
  const size_t read = host->api.llama_state_seq_set_data_ext(ctx, data, size, seq, flags);
  ckvp_context *context = restored_context(host, ctx);
  if (!context) return read;
  // A part of the state leaves the global cache as it is, but cells may have moved.
  if (flags & LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY) {
    ckvp_note_divided(context, seq);
  } else {
    ckvp_note_restored(context, seq);
  }
  return read;
}

size_t CKVP_FN(llama_state_seq_set_data)(struct llama_context *ctx, const uint8_t *data,
                                         size_t size, llama_seq_id seq) {
  const ckvp_host *host = real();
  if (!host || !host->llama_state_seq_set_data) {
    PASS_ON(llama_state_seq_set_data, 0, ctx, data, size, seq);
  }
  const size_t read = host->llama_state_seq_set_data(ctx, data, size, seq);
  ckvp_context *context = restored_context(host, ctx);
  if (context) ckvp_note_restored(context, seq);
  return read;
}

size_t CKVP_FN(llama_state_seq_load_file)(struct llama_context *ctx, const char *path,
                                          llama_seq_id seq, llama_token *tokens, size_t capacity,
                                          size_t *count) {
  const ckvp_host *host = real();
  if (!host || !host->llama_state_seq_load_file) {
    PASS_ON(llama_state_seq_load_file, 0, ctx, path, seq, tokens, capacity, count);
  }
  const size_t read = host->llama_state_seq_load_file(ctx, path, seq, tokens, capacity, count);
  ckvp_context *context = restored_context(host, ctx);
  if (context) ckvp_note_restored(context, seq);
  return read;
}

size_t CKVP_FN(llama_state_set_data)(struct llama_context *ctx, const uint8_t *data, size_t size) {
  const ckvp_host *host = real();
  if (!host || !host->llama_state_set_data) {
    PASS_ON(llama_state_set_data, 0, ctx, data, size);
  }
  const size_t read = host->llama_state_set_data(ctx, data, size);
  ckvp_context *context = restored_context(host, ctx);
  if (context) ckvp_note_restored(context, -1);
  return read;
}

bool CKVP_FN(llama_state_load_file)(struct llama_context *ctx, const char *path,
                                    llama_token *tokens, size_t capacity, size_t *count) {
  const ckvp_host *host = real();
  if (!host || !host->llama_state_load_file) {
    PASS_ON(llama_state_load_file, false, ctx, path, tokens, capacity, count);
  }
  const bool loaded = host->llama_state_load_file(ctx, path, tokens, capacity, count);
  ckvp_context *context = restored_context(host, ctx);
  if (context) ckvp_note_restored(context, -1);
  return loaded;
}

#if defined(__APPLE__)
// What dyld is to put in whose place.
CKVP_INTERPOSE(ggml_backend_sched_set_eval_callback)
CKVP_INTERPOSE(ggml_backend_sched_free)
CKVP_INTERPOSE(llama_decode)
CKVP_INTERPOSE(llama_free)
CKVP_INTERPOSE(llama_memory_clear)
CKVP_INTERPOSE(llama_memory_seq_rm)
CKVP_INTERPOSE(llama_memory_seq_cp)
CKVP_INTERPOSE(llama_memory_seq_keep)
CKVP_INTERPOSE(llama_memory_seq_add)
CKVP_INTERPOSE(llama_memory_seq_div)
CKVP_INTERPOSE(llama_memory_seq_pos_min)
CKVP_INTERPOSE(llama_state_seq_get_data_ext)
CKVP_INTERPOSE(llama_state_seq_set_data_ext)
CKVP_INTERPOSE(llama_state_seq_set_data)
CKVP_INTERPOSE(llama_state_seq_load_file)
CKVP_INTERPOSE(llama_state_set_data)
CKVP_INTERPOSE(llama_state_load_file)
#endif
