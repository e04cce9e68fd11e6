// A sequence's newest tokens, to be decoded again where their queries were not captured.
#ifndef CKVP_AGAIN_H
#define CKVP_AGAIN_H

#include "tracked.h"

// A batch of them, without outputs.
struct ckvp_again {
  struct llama_batch batch;
  llama_token token[CKVL_WINDOW];
  llama_pos pos[CKVL_WINDOW];
  int32_t num_owners[CKVL_WINDOW];
  llama_seq_id *owners[CKVL_WINDOW];
  llama_seq_id owner;
  int8_t output[CKVL_WINDOW];
};

// Notes the tokens of the sequence's run in a batch that was decoded.
void ckvp_note_tokens(ckvp_sequence *sequence, const struct llama_batch *batch, bool decoded);

// Takes the tokens out of the sequence that the run's queries lack for a window, and begins their capture.
// False: nothing is lacking, or it cannot be had; then nothing has changed.
bool ckvp_again_begin(ckvp_context *context, llama_seq_id seq, int32_t window,
                      struct ckvp_again *again);

#endif
