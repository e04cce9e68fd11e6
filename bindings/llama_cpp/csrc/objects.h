// What the bridge's objects hold.
#ifndef CKVL_OBJECTS_H
#define CKVL_OBJECTS_H

#include <stdatomic.h>

#include "accumulator.h"
#include "bridge.h"
#include "compaction.h"
#include "hidden.h"
#include "state_check.h"
#include "worker_pool.h"

#define CKVL_MAX_SEQUENCES 256

struct ckv_llama_engine {
  atomic_int references;
  ckvl_api api;
  ckvl_host_api host;
  char version[64];
  bool is_open;
  ckvl_error error;
};

struct ckv_llama_model {
  atomic_int references;
  ckv_llama_engine *engine;
  struct llama_model *model;  // NULL until loaded
  const struct llama_vocab *vocab;
  atomic_int progress;  // in 1/65536
  atomic_bool cancelled;
  ckvl_error error;
};

// One sequence of a context.
typedef struct ckvl_sequence {
  ckvl_capture capture;
  ckvl_sums sums;   // of a context that adds up attention
  bool has_hidden;  // some layer has cells that are hidden from it
  llama_pos next;   // position of the next token
  int32_t *tokens;  // the newest tokens, up to position next - 1, oldest first
  int32_t num_tokens, token_capacity;
  float *logits;  // [vocab_size], NULL until the first prompt
  bool has_logits;
  bool shift_pending;
  // Sliding windows hold no more than what the next token sees: the newest tokens cannot be decoded
  // again, so that the queries of all of them must be captured.
  bool windows_cut;
  // Below this position the layers have tokens of their own each, and cells are no longer those of
  // the positions that they are counted by.
  llama_pos compacted_end;
} ckvl_sequence;

// A prompt that is going in.
typedef struct ckvl_prefill {
  int32_t sequence;  // -1: none
  llama_pos first;
  int32_t num_tokens, done;
  int32_t tokens_before;
  bool had_logits;
  uint8_t *sliding_blob;  // the sliding-window part of the state before, NULL if not needed
  size_t sliding_bytes;
  ckvl_sums sums;  // those of the sequence before
} ckvl_prefill;

struct ckv_llama_context {
  uint64_t number;  // no other context of the process has it, not even a later one at this address
  ckv_llama_model *model;
  struct llama_context *ctx;  // NULL until initialised
  llama_memory_t memory;
  ckv_context *ckv;  // of the CPU
  ckvl_devices devices;
  ckvl_worker_pool workers;
  int32_t num_sequences, batch_size;
  int32_t max_outputs;  // tokens whose logits one decode call can have
  bool flash_attention;
  ckvl_state_limits limits;
  ckvl_sequence *sequences;
  ckvl_prefill prefill;
  ckvl_capture *recording;  // that the eval callback serves now, NULL: none
  // The engine's scheduler, where this library sees it being told its callback; NULL: it does not.
  _Atomic(ggml_backend_sched_t) scheduler;
  struct ckv_llama_context *next_watched;
  bool accumulates;    // attention is added up, but not while
  bool is_refreshing;  // tokens are decoded again
  ckvl_accumulator accumulator;
  ckvl_hiding hiding;
  ckvl_kept kept;  // of the last compression
  // A batch's arrays, [batch_size].
  llama_pos *positions;
  int32_t *owner_counts;
  llama_seq_id **owners;
  int8_t *outputs;
  atomic_flag busy;
  atomic_bool cancelled;
  ckvl_error error;
};

struct ckv_llama_sampler {
  ckv_llama_model *model;
  struct llama_sampler *chain;
  llama_token_data *candidates;  // [vocab_size]
  llama_token *ends;             // tokens that are never picked
  int32_t num_ends;
};

// What the scheduler's eval callback does, and whether it has anything to do in this decode call.
bool ckvl_watch_node(ckv_llama_context *context, struct ggml_tensor *node, bool ask);
bool ckvl_is_watching(const ckv_llama_context *context);

void ckvl_engine_retain(ckv_llama_engine *engine);
void ckvl_model_retain(ckv_llama_model *model);

// Enters a call about a sequence: the context must be initialised and not inside another call nor,
// unless it is a call about that, a prompt. Pairs with leave if it succeeds.
ckv_status ckvl_enter(ckv_llama_context *context, int32_t sequence);
ckv_status ckvl_enter_prefill(ckv_llama_context *context);

// The same for a call that only reads what a prompt leaves alone: between its steps, too.
ckv_status ckvl_enter_reading(ckv_llama_context *context, int32_t sequence);

ckv_status ckvl_leave(ckv_llama_context *context, ckv_status status);

// Which logits a decode call computes: the newest ones are kept with the sequence, all of them can be
// read from the engine until the next call.
typedef enum ckvl_wanted { CKVL_NO_LOGITS, CKVL_NEWEST_LOGITS, CKVL_ALL_LOGITS } ckvl_wanted;

// Decodes tokens at the end of a sequence. Queries from position `capture_from` on are captured. On
// failure the sequence ends where it did.
ckv_status ckvl_decode(ckv_llama_context *context, int32_t sequence, const int32_t *tokens,
                       int32_t num_tokens, llama_pos capture_from, ckvl_wanted wanted);

// Decodes one token at the end of each of `count` different sequences in one batch, and keeps its
// logits. Captures no queries. On failure all sequences end where they did.
ckv_status ckvl_decode_each(ckv_llama_context *context, int32_t count, const int32_t *sequences,
                            const int32_t *tokens);

// Replaces a sequence by a serialised state, checked first; `tokens` are its newest, as far as known.
ckv_status ckvl_state_set(ckv_llama_context *context, int32_t sequence, const uint8_t *data,
                          size_t size, const int32_t *tokens, int32_t num_tokens);

// Makes sure that the newest `rows` tokens have captured queries and cells that are still theirs:
// decodes them again if not. *was_needed tells.
ckv_status ckvl_refresh_window(ckv_llama_context *context, int32_t sequence, int32_t rows,
                               bool *was_needed);

// Forgets what is known of a sequence's tokens and queries from position `from` on.
void ckvl_sequence_truncate(ckvl_sequence *sequence, llama_pos from);

// The sequence is gone from the engine.
void ckvl_sequence_clear(ckvl_sequence *sequence);

#endif
