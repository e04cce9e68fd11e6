#include "tracked.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cells.h"
#include "quiet.h"
#include "say.h"
#include "settings.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static ckvp_context *contexts;  // newest first

static void reset(ckvp_sequence *sequence) {
  ckvl_capture_forget(&sequence->capture);
  sequence->tail = sequence->compacted = sequence->next = 0;
  sequence->pending = 0;
  sequence->cells = 0;
  sequence->num_recent = 0;
  sequence->is_edited = false;
}

static void release(ckvp_context *context) {
  for (int32_t s = 0; context->sequences && s < context->num_sequences; s++) {
    ckvl_capture_free(&context->sequences[s].capture);
  }
  ckv_context_free(context->ckv);
  ckvl_devices_free(&context->devices);
  free(context->sequences);
  free(context);
}

// Why nothing of it can be compressed, NULL if nothing is against it.
static const char *unsuitable(const ckvp_host *host, const ckvp_context *context) {
  if (!context->memory) return NULL;  // no cache, nothing to say
  if (host->llama_model_is_recurrent(context->model)) return "the model is recurrent";
  if (host->llama_model_is_hybrid(context->model)) return "the model is a hybrid";
  if (host->llama_model_has_encoder(context->model)) return "the model has an encoder";
  return NULL;
}

static ckvp_context *make(const ckvp_host *host, struct llama_context *ctx) {
  ckvp_context *context = calloc(1, sizeof *context);
  if (!context) return NULL;
  context->host = host;
  context->ctx = ctx;
  context->memory = host->api.llama_get_memory(ctx);
  context->model = host->llama_get_model(ctx);
  context->num_sequences = (int32_t)host->api.llama_n_seq_max(ctx);
  context->batch_size = (int32_t)host->llama_n_batch(ctx);
  context->sequences = calloc((size_t)context->num_sequences, sizeof *context->sequences);
  if (!context->sequences) {
    release(context);
    return NULL;
  }
  for (int32_t s = 0; s < context->num_sequences; s++) {
    ckvl_capture_init(&context->sequences[s].capture, &host->api);
    context->sequences[s].capture.has_one_mask = host->llama_model_n_swa(context->model) == 0;
    context->sequences[s].cells = -1;
  }
  const char *const reason = unsuitable(host, context);
  if (reason) ckvp_say(CKVP_WARN, "nothing is compressed: %s", reason);
  context->is_unsuitable = reason || !context->memory ||
                           (host->llama_pooling_type(ctx) != LLAMA_POOLING_TYPE_NONE &&
                            host->llama_pooling_type(ctx) != LLAMA_POOLING_TYPE_UNSPECIFIED);
  return context;
}

static ckvp_context *find(const struct llama_context *ctx) {
  ckvp_context *context = contexts;
  while (context && context->ctx != ctx) context = context->next;
  return context;
}

ckvp_context *ckvp_track(const ckvp_host *host, struct llama_context *ctx) {
  pthread_mutex_lock(&lock);
  ckvp_context *context = find(ctx);
  if (!context) {
    context = make(host, ctx);
    if (context) {
      context->next = contexts;
      contexts = context;
    }
  }
  pthread_mutex_unlock(&lock);
  return context;
}

ckvp_context *ckvp_tracked_context(const struct llama_context *ctx) {
  pthread_mutex_lock(&lock);
  ckvp_context *context = find(ctx);
  pthread_mutex_unlock(&lock);
  return context;
}

ckvp_context *ckvp_tracked(llama_memory_t memory) {
  pthread_mutex_lock(&lock);
  ckvp_context *context = contexts;
  while (context && context->memory != memory) context = context->next;
  pthread_mutex_unlock(&lock);
  return context;
}

void ckvp_untrack(const struct llama_context *ctx) {
  pthread_mutex_lock(&lock);
  ckvp_context **link = &contexts;
  while (*link && (*link)->ctx != ctx) link = &(*link)->next;
  ckvp_context *const context = *link;
  if (context) *link = context->next;
  pthread_mutex_unlock(&lock);
  if (context) release(context);
}

void ckvp_forget_scheduler(ggml_backend_sched_t scheduler) {
  pthread_mutex_lock(&lock);
  for (ckvp_context *context = contexts; context; context = context->next) {
    ggml_backend_sched_t expected = scheduler;
    atomic_compare_exchange_strong(&context->scheduler, &expected, NULL);
  }
  pthread_mutex_unlock(&lock);
}

bool ckvp_is_draft(const ckvp_context *context) {
  const ckvp_host *host = context->host;
  const uint64_t own = host->llama_model_n_params(context->model);
  bool is_draft = false, is_older = false;
  pthread_mutex_lock(&lock);
  for (const ckvp_context *other = contexts; other; other = other->next) {
    if (other == context) {
      is_older = true;  // newest first: what follows was known before
    } else if (other->memory && other->model != context->model) {
      const uint64_t size = host->llama_model_n_params(other->model);
      is_draft = is_draft || size > own || (size == own && is_older);
    }
  }
  pthread_mutex_unlock(&lock);
  return is_draft;
}

// The sequences that a call is about: [*begin, *end).
static void range(const ckvp_context *context, llama_seq_id seq, int32_t *begin, int32_t *end) {
  *begin = seq < 0 ? 0 : seq;
  *end = seq < 0 ? context->num_sequences : seq < context->num_sequences ? seq + 1 : seq;
}

static void cut(ckvp_sequence *sequence, llama_pos p0) {
  ckvl_capture_rewind(&sequence->capture, p0);
  // From the tail on each position has a cell.
  const llama_pos removed = sequence->next > p0 ? sequence->next - p0 : 0;
  // llama-server cuts at the end before each batch: the prompt goes on then.
  if (removed > 0) sequence->pending = 0;
  sequence->next -= removed;
  sequence->num_recent = sequence->num_recent > removed ? sequence->num_recent - removed : 0;
  sequence->cells =
      p0 >= sequence->tail && sequence->cells >= removed ? sequence->cells - removed : -1;
  if (sequence->tail > p0) sequence->tail = p0;
  if (sequence->compacted > p0) sequence->compacted = p0;
}

void ckvp_note_removed(ckvp_context *context, llama_seq_id seq, llama_pos p0, llama_pos p1) {
  int32_t s, end;
  for (range(context, seq, &s, &end); s < end; s++) {
    ckvp_sequence *sequence = &context->sequences[s];
    if (p0 <= 0 && p1 < 0) {
      reset(sequence);
    } else if (p1 < 0) {
      cut(sequence, p0);
    } else {
      ckvl_capture_forget(&sequence->capture);
      sequence->cells = -1;
      sequence->num_recent = 0;
      // A cell before the tail has other tokens in other layers.
      sequence->is_edited = sequence->is_edited || p0 < sequence->tail;
    }
  }
}

void ckvp_note_copied(ckvp_context *context, llama_seq_id from, llama_seq_id to) {
  if (from < 0 || to < 0 || to >= context->num_sequences || from == to) return;
  if (from >= context->num_sequences) {
    // Of numbers beyond the context's nothing is known but what the engine says.
    ckvp_note_restored(context, to);
    return;
  }
  const ckvp_sequence *source = &context->sequences[from];
  ckvp_sequence *target = &context->sequences[to];
  reset(target);
  target->tail = source->tail;
  target->compacted = source->compacted;
  target->next = source->next;
  target->cells = -1;
  target->is_edited = source->is_edited;
}

void ckvp_note_kept(ckvp_context *context, llama_seq_id seq) {
  for (int32_t s = 0; s < context->num_sequences; s++) {
    // Those in a part of the cache of their own stay.
    const bool is_gone = context->host->api.llama_memory_seq_pos_max(context->memory, s) < 0;
    if (s != seq && is_gone) reset(&context->sequences[s]);
  }
}

static llama_pos moved(llama_pos at, llama_pos p0, llama_pos p1, llama_pos delta) {
  if (at == 0 || at < p0 || (p1 >= 0 && at > p1)) return at;
  return at + delta > 0 ? at + delta : 0;
}

void ckvp_note_moved(ckvp_context *context, llama_seq_id seq, llama_pos p0, llama_pos p1,
                     llama_pos delta) {
  int32_t s, end;
  for (range(context, seq, &s, &end); s < end; s++) {
    ckvp_sequence *sequence = &context->sequences[s];
    ckvl_capture_forget(&sequence->capture);
    sequence->num_recent = 0;
    sequence->tail = moved(sequence->tail, p0, p1, delta);
    sequence->compacted = moved(sequence->compacted, p0, p1, delta);
    sequence->next = moved(sequence->next, p0, p1, delta);
  }
}

void ckvp_note_divided(ckvp_context *context, llama_seq_id seq) {
  int32_t s, end;
  for (range(context, seq, &s, &end); s < end; s++) {
    ckvl_capture_forget(&context->sequences[s].capture);
    context->sequences[s].num_recent = 0;
  }
}

// False: they cannot be read. *cells is to be freed.
static bool read_cells(const ckvp_context *context, llama_seq_id seq, ckvl_cells *cells) {
  ckvl_error error;
  ckvp_quiet_begin(context->host);
  const ckv_status status =
      ckvl_cells_read(&context->host->api, context->ctx, seq, 0, NULL, 0, cells, &error);
  ckvp_quiet_end(context->host);
  return status == CKV_OK;
}

void ckvp_count_cells(ckvp_context *context, llama_seq_id seq) {
  ckvp_sequence *sequence = &context->sequences[seq];
  ckvl_cells cells;
  if (sequence->cells >= 0) return;
  sequence->cells = 0;
  if (!read_cells(context, seq, &cells)) return;
  sequence->cells = cells.count;
  ckvl_cells_free(&cells);
}

static void read_positions(ckvp_context *context, llama_seq_id seq) {
  ckvp_sequence *sequence = &context->sequences[seq];
  ckvl_cells cells;
  if (!read_cells(context, seq, &cells)) return;
  sequence->cells = cells.count;
  sequence->next = cells.count > 0 ? cells.pos[cells.count - 1] + 1 : 0;
  int32_t first = cells.count;
  while (first > 1 && cells.pos[first - 1] == cells.pos[first - 2] + 1) first--;
  // Positions that are missing in front of all others are no gap: a shift may have dropped them.
  if (first > 1) {
    sequence->tail = cells.pos[first - 1];
    sequence->compacted = sequence->tail + ckvp_settings_get()->params.window;
  }
  ckvl_cells_free(&cells);
}

void ckvp_note_restored(ckvp_context *context, llama_seq_id seq) {
  int32_t s, end;
  for (range(context, seq, &s, &end); s < end; s++) {
    reset(&context->sequences[s]);
    context->sequences[s].cells = -1;
    if (!context->is_unsuitable) read_positions(context, s);
  }
}

llama_pos ckvp_first_position(const ckvp_context *context, llama_seq_id seq, llama_pos found) {
  if (found < 0 || seq < 0 || seq >= context->num_sequences) return found;
  const ckvp_sequence *sequence = &context->sequences[seq];
  const llama_pos tail = sequence->tail;
  if (tail <= 0) return found;
  if (sequence->is_edited) return sequence->next > found ? sequence->next : found;
  // A host with sliding windows asks for that much more than it goes back to.
  const llama_pos first = tail > context->reach ? tail - context->reach : 0;
  return first > found ? first : found;
}
