#define CKV_FAULT_KEEP
#include "fault.h"

#include <llama.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "inject.h"

// One counter for things that can run out, one for calls of the engine.
typedef struct counter {
  atomic_long seen, number, times;
} counter;

static counter allocations, calls;
static atomic_long live;
static _Atomic(const char *) failed;

static void arm(counter *c, long number, long times) {
  atomic_store(&c->seen, 0);
  atomic_store(&c->number, number);
  atomic_store(&c->times, times);
  if (number != 0) atomic_store(&failed, NULL);
}

static atomic_bool is_paused;

void inject_pause(bool paused) { atomic_store(&is_paused, paused); }

static bool fails(counter *c, const char *what) {
  if (atomic_load(&is_paused)) return false;
  const long seen = atomic_fetch_add(&c->seen, 1) + 1, number = atomic_load(&c->number);
  if (number == 0 || seen < number || seen - number >= atomic_load(&c->times)) return false;
  atomic_store(&failed, what);
  return true;
}

void inject_allocation(long number, bool forever) {
  arm(&allocations, number, forever ? INT32_MAX : 1);
}
void inject_engine(long number, long times) { arm(&calls, number, times); }
long inject_allocations(void) { return atomic_load(&allocations.seen); }
long inject_engine_calls(void) { return atomic_load(&calls.seen); }
const char *inject_failed(void) { return atomic_load(&failed); }
long inject_live(void) { return atomic_load(&live); }

static void *counted(void *made) {
  if (made) atomic_fetch_add(&live, 1);
  return made;
}

void *fault_malloc(size_t bytes) {
  return fails(&allocations, "malloc") ? NULL : counted(malloc(bytes));
}

void *fault_calloc(size_t count, size_t bytes) {
  return fails(&allocations, "calloc") ? NULL : counted(calloc(count, bytes));
}

void *fault_realloc(void *memory, size_t bytes) {
  if (fails(&allocations, "realloc")) return NULL;
  void *const grown = realloc(memory, bytes);
  return memory ? grown : counted(grown);
}

void *fault_aligned_alloc(size_t alignment, size_t bytes) {
  return fails(&allocations, "aligned_alloc") ? NULL : counted(aligned_alloc(alignment, bytes));
}

void fault_free(void *memory) {
  if (memory) atomic_fetch_sub(&live, 1);
  free(memory);
}

int fault_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                         void *arg) {
  if (fails(&allocations, "pthread_create")) return 11;
  const int error = pthread_create(thread, attributes, run, arg);
  if (error == 0) atomic_fetch_add(&live, 1);
  return error;
}

int fault_pthread_join(pthread_t thread, void **result) {
  atomic_fetch_sub(&live, 1);
  return pthread_join(thread, result);
}

FILE *fault_fopen(const char *path, const char *mode) {
  return fails(&allocations, "fopen") ? NULL : counted(fopen(path, mode));
}

int fault_fclose(FILE *file) {
  atomic_fetch_sub(&live, 1);
  return fclose(file);
}

locale_t fault_newlocale(int mask, const char *name, locale_t base) {
  return fails(&allocations, "newlocale") ? (locale_t)0 : counted(newlocale(mask, name, base));
}

void fault_freelocale(locale_t locale) {
  atomic_fetch_sub(&live, 1);
  freelocale(locale);
}

// The engine's functions, each behind one that fails as it does.
#define REAL(name) static __typeof__(&name) real_##name
REAL(llama_get_memory);
REAL(llama_memory_seq_rm);
REAL(llama_state_seq_get_size_ext);
REAL(llama_state_seq_get_data_ext);
REAL(llama_state_seq_set_data_ext);
REAL(llama_memory_seq_pos_max);
REAL(llama_decode);
REAL(ggml_backend_buft_alloc_buffer);
REAL(ggml_backend_buffer_free);

static llama_memory_t get_memory(const struct llama_context *ctx) {
  return real_llama_get_memory(ctx);
}

static bool fail_seq_rm(llama_memory_t memory, llama_seq_id seq, llama_pos p0, llama_pos p1) {
  // Whole sequences can always be removed: llama.h.
  const bool whole = p0 <= 0 && p1 < 0;
  if (!whole && fails(&calls, "llama_memory_seq_rm")) return false;
  return real_llama_memory_seq_rm(memory, seq, p0, p1);
}

static size_t fail_get_size(struct llama_context *ctx, llama_seq_id seq,
                            llama_state_seq_flags flags) {
  if (fails(&calls, "llama_state_seq_get_size_ext")) return 0;
  return real_llama_state_seq_get_size_ext(ctx, seq, flags);
}

static size_t fail_get_data(struct llama_context *ctx, uint8_t *data, size_t size, llama_seq_id seq,
                            llama_state_seq_flags flags) {
  if (fails(&calls, "llama_state_seq_get_data_ext")) return 0;
  return real_llama_state_seq_get_data_ext(ctx, data, size, seq, flags);
}

// The engine lets go of the sequence before it reads what comes in its place.
static size_t fail_set_data(struct llama_context *ctx, const uint8_t *data, size_t size,
                            llama_seq_id seq, llama_state_seq_flags flags) {
  if (fails(&calls, "llama_state_seq_set_data_ext")) {
    real_llama_memory_seq_rm(real_llama_get_memory(ctx), seq, -1, -1);
    return 0;
  }
  return real_llama_state_seq_set_data_ext(ctx, data, size, seq, flags);
}

static llama_pos fail_pos_max(llama_memory_t memory, llama_seq_id seq) {
  if (fails(&calls, "llama_memory_seq_pos_max")) return -1;
  return real_llama_memory_seq_pos_max(memory, seq);
}

static int32_t fail_decode(struct llama_context *ctx, struct llama_batch batch) {
  if (fails(&calls, "llama_decode")) return -3;
  return real_llama_decode(ctx, batch);
}

static ggml_backend_buffer_t fail_alloc(ggml_backend_buffer_type_t type, size_t bytes) {
  if (fails(&allocations, "ggml_backend_buft_alloc_buffer")) return NULL;
  return counted(real_ggml_backend_buft_alloc_buffer(type, bytes));
}

static void count_free(ggml_backend_buffer_t buffer) {
  atomic_fetch_sub(&live, 1);
  real_ggml_backend_buffer_free(buffer);
}

static void *instead_of(const char *name, void *found) {
#define INSTEAD(function, own)                      \
  if (found && strcmp(name, #function) == 0) {      \
    memcpy(&real_##function, &found, sizeof found); \
    __typeof__(&function) const replacement = own;  \
    void *pointer;                                  \
    memcpy(&pointer, &replacement, sizeof pointer); \
    return pointer;                                 \
  }
  INSTEAD(llama_get_memory, get_memory)
  INSTEAD(llama_memory_seq_rm, fail_seq_rm)
  INSTEAD(llama_state_seq_get_size_ext, fail_get_size)
  INSTEAD(llama_state_seq_get_data_ext, fail_get_data)
  INSTEAD(llama_state_seq_set_data_ext, fail_set_data)
  INSTEAD(llama_memory_seq_pos_max, fail_pos_max)
  INSTEAD(llama_decode, fail_decode)
  INSTEAD(ggml_backend_buft_alloc_buffer, fail_alloc)
  INSTEAD(ggml_backend_buffer_free, count_free)
#undef INSTEAD
  return found;
}

void *fault_dlsym(void *library, const char *name) {
  return instead_of(name, dlsym(library, name));
}
