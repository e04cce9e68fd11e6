// What is known of the host's contexts and their sequences.
#ifndef CKVP_TRACKED_H
#define CKVP_TRACKED_H

#include <stdatomic.h>

#include "capture.h"
#include "host.h"
#include "places.h"

typedef struct ckvp_sequence {
  ckvl_capture capture;
  llama_pos tail;       // from here on every position is there; 0: nothing was compacted
  llama_pos compacted;  // position after the newest token of the last compaction
  int32_t pending;      // prompt tokens decoded since the last output
  llama_pos next;       // position after the newest token that was decoded
  int32_t cells;        // that it has; -1: not known
  llama_token recent[CKVL_WINDOW];  // its newest tokens before `next`, num_recent of them
  int32_t num_recent;
  bool is_edited;  // something before the tail was taken out since the last decode call
  // Of the decode call that runs.
  ckvl_run run;      // end 0: it has no tokens in the batch
  bool is_mixed;     // several runs, or tokens of several sequences: cannot be captured
  bool is_prompt;    // some token has no output
  bool ends_prompt;  // the last token has an output, and tokens without one came before it
  bool is_captured;
} ckvp_sequence;

typedef struct ckvp_context {
  struct ckvp_context *next;
  const ckvp_host *host;
  struct llama_context *ctx;
  llama_memory_t memory;
  const struct llama_model *model;
  ckv_context *ckv;  // of the CPU; NULL until the first compaction
  ckvl_devices devices;
  bool keeps_device_states;  // the host has saved a state on a device
  int32_t reach;  // positions before the tail that the host allows for: a sliding window's
  int32_t batch_size, num_sequences;
  bool is_capturing;
  bool is_on_device;  // some layers are: what is captured stops the engine
  bool is_unsuitable;
  // Its scheduler, as it last showed itself; NULL: not yet, freed, or watched by the host.
  _Atomic(ggml_backend_sched_t) scheduler;
  ckvp_sequence *sequences;
  uint64_t said;  // hash of what was last said about it
} ckvp_context;

// The context's record, made at the first call; NULL without memory for it.
ckvp_context *ckvp_track(const ckvp_host *host, struct llama_context *ctx);

// The scheduler is gone.
void ckvp_forget_scheduler(ggml_backend_sched_t scheduler);

// NULL: not tracked.
ckvp_context *ckvp_tracked(llama_memory_t memory);
ckvp_context *ckvp_tracked_context(const struct llama_context *ctx);
void ckvp_untrack(const struct llama_context *ctx);

// True if the model of another context is larger, or equally large and known for longer: then this
// one drafts for it.
bool ckvp_is_draft(const ckvp_context *context);

// Makes sure that the number of the sequence's cells is known; 0 if it cannot be.
void ckvp_count_cells(ckvp_context *context, llama_seq_id seq);

// What the host does to sequences; `seq` -1: to all.
void ckvp_note_removed(ckvp_context *context, llama_seq_id seq, llama_pos p0, llama_pos p1);
void ckvp_note_copied(ckvp_context *context, llama_seq_id from, llama_seq_id to);
void ckvp_note_kept(ckvp_context *context, llama_seq_id seq);
void ckvp_note_moved(ckvp_context *context, llama_seq_id seq, llama_pos p0, llama_pos p1,
                     llama_pos delta);
void ckvp_note_divided(ckvp_context *context, llama_seq_id seq);
// Its state was replaced: whether it is a compacted one is read from its positions.
void ckvp_note_restored(ckvp_context *context, llama_seq_id seq);

// The smallest position from which on all are there, as llama.h promises of seq_pos_min.
llama_pos ckvp_first_position(const ckvp_context *context, llama_seq_id seq, llama_pos found);

#endif
