#include "again.h"

#include <string.h>

void ckvp_note_tokens(ckvp_sequence *sequence, const struct llama_batch *batch, bool decoded) {
  const ckvl_run *run = &sequence->run;
  if (!decoded || !batch->token || sequence->is_mixed) {
    sequence->num_recent = 0;
    return;
  }
  int32_t added = run->end - run->begin;
  if (added > CKVL_WINDOW) added = CKVL_WINDOW;
  int32_t kept = sequence->num_recent;
  if (kept > CKVL_WINDOW - added) kept = CKVL_WINDOW - added;
  memmove(sequence->recent, sequence->recent + (sequence->num_recent - kept),
          sizeof *sequence->recent * (size_t)kept);
  memcpy(sequence->recent + kept, batch->token + (run->end - added),
         sizeof *sequence->recent * (size_t)added);
  sequence->num_recent = kept + added;
}

// How many tokens before the run are to be decoded again.
static int32_t lacking(const ckvp_sequence *sequence, int32_t window) {
  const ckvl_run *run = &sequence->run;
  const int32_t rows = sequence->capture.next == run->first ? sequence->capture.rows : 0;
  int32_t count = window - (run->end - run->begin);
  if (run->end == 0 || sequence->is_mixed || !sequence->ends_prompt || rows >= count) return 0;
  if (count > sequence->num_recent) count = sequence->num_recent;
  // Tokens of a compacted part are not in all layers.
  const bool is_whole = sequence->next == run->first && run->first - count >= sequence->tail;
  return is_whole ? count : 0;
}

bool ckvp_again_begin(ckvp_context *context, llama_seq_id seq, int32_t window,
                      struct ckvp_again *again) {
  ckvp_sequence *sequence = &context->sequences[seq];
  const int32_t count = lacking(sequence, window);
  const llama_pos first = sequence->run.first - count;
  if (count <= 0 || !context->host->api.llama_memory_seq_rm(context->memory, seq, first, -1)) {
    return false;
  }
  memcpy(again->token, sequence->recent + (sequence->num_recent - count),
         sizeof *again->token * (size_t)count);
  again->owner = seq;
  for (int32_t i = 0; i < count; i++) {
    again->pos[i] = first + i;
    again->num_owners[i] = 1;
    again->owners[i] = &again->owner;
    again->output[i] = 0;
  }
  again->batch = (struct llama_batch){
      .n_tokens = count,
      .token = again->token,
      .pos = again->pos,
      .n_seq_id = again->num_owners,
      .seq_id = again->owners,
      .logits = again->output,
  };
  const ckvl_run run = {.seq = seq, .end = count, .batch_tokens = count, .first = first};
  ckvl_capture_forget(&sequence->capture);
  ckvl_capture_begin(&sequence->capture, &run, first);
  return true;
}
