// Texts and tokens, both ways; chat templates.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "objects.h"

#define TEXT_MISSING (-1)
#define TEXT_IMPOSSIBLE (-2)

// The engine ends texts with a zero byte and cuts them off to make room for it: get the whole text
// first, then hand out what fits.
static int32_t hand_out(const char *text, int32_t length, char *out, int32_t capacity) {
  if (capacity > 0) memcpy(out, text, (size_t)(length < capacity ? length : capacity));
  return length;
}

int32_t ckv_llama_model_description(ckv_llama_model *model, char *text, int32_t capacity) {
  char whole[256];
  const int32_t length = model->engine->host.llama_model_desc(model->model, whole, sizeof whole);
  if (length < 0) return TEXT_MISSING;
  return hand_out(whole, length < (int32_t)sizeof whole ? length : (int32_t)sizeof whole - 1, text,
                  capacity);
}

int32_t ckv_llama_model_metadata(ckv_llama_model *model, const char *key, char *text,
                                 int32_t capacity) {
  const ckvl_host_api *host = &model->engine->host;
  const int32_t length = host->llama_model_meta_val_str(model->model, key, NULL, 0);
  if (length < 0) return TEXT_MISSING;
  char *whole = malloc((size_t)length + 1);
  if (!whole) return TEXT_IMPOSSIBLE;
  host->llama_model_meta_val_str(model->model, key, whole, (size_t)length + 1);
  hand_out(whole, length, text, capacity);
  free(whole);
  return length;
}

int32_t ckv_llama_model_chat_template(ckv_llama_model *model, char *text, int32_t capacity) {
  const char *own = model->engine->host.llama_model_chat_template(model->model, NULL);
  return own ? hand_out(own, (int32_t)strlen(own), text, capacity) : TEXT_MISSING;
}

// Splits the packed texts into messages; NULL if they do not come in pairs or memory is out.
static struct llama_chat_message *unpack(const char *packed, int32_t bytes, size_t *count) {
  size_t texts = 0;
  for (int32_t i = 0; i < bytes; i++) texts += packed[i] == '\0';
  if (bytes < 1 || packed[bytes - 1] != '\0' || texts % 2 != 0) return NULL;
  struct llama_chat_message *messages = malloc(sizeof *messages * (texts / 2));
  if (!messages) return NULL;
  for (*count = 0; *count < texts / 2; (*count)++) {
    messages[*count].role = packed;
    packed += strlen(packed) + 1;
    messages[*count].content = packed;
    packed += strlen(packed) + 1;
  }
  return messages;
}

int32_t ckv_llama_apply_chat_template(ckv_llama_model *model, const char *chat_template,
                                      const char *packed, int32_t packed_bytes,
                                      int32_t open_assistant_turn, char *text, int32_t capacity) {
  const ckvl_host_api *host = &model->engine->host;
  if (!chat_template) chat_template = host->llama_model_chat_template(model->model, NULL);
  if (!chat_template) return TEXT_MISSING;
  size_t count;
  struct llama_chat_message *messages = unpack(packed, packed_bytes, &count);
  if (!messages) return TEXT_IMPOSSIBLE;
  const int32_t length = host->llama_chat_apply_template(chat_template, messages, count,
                                                         open_assistant_turn != 0, text, capacity);
  free(messages);
  return length < 0 ? TEXT_IMPOSSIBLE : length;
}

// Of a model without a vocabulary, which takes tokens alone, the engine aborts at the first text.
static bool has_texts(const ckv_llama_model *model) {
  return model->engine->host.llama_vocab_type(model->vocab) != LLAMA_VOCAB_TYPE_NONE;
}

int32_t ckv_llama_tokenize(ckv_llama_model *model, const char *text, int32_t text_bytes,
                           int32_t add_special, int32_t parse_special, int32_t *tokens,
                           int32_t capacity) {
  if (text_bytes < 0 || capacity < 0 || !has_texts(model)) return -1;  // the engine would throw
  const int32_t count = model->engine->host.llama_tokenize(
      model->vocab, text, text_bytes, tokens, capacity, add_special != 0, parse_special != 0);
  if (count == INT32_MIN) return -1;
  return count < 0 ? -count : count;
}

int32_t ckv_llama_detokenize(ckv_llama_model *model, const int32_t *tokens, int32_t num_tokens,
                             int32_t with_special, char *text, int32_t capacity) {
  const int32_t vocab_size = model->engine->host.llama_vocab_n_tokens(model->vocab);
  if (num_tokens < 0 || capacity < 0 || !has_texts(model)) return TEXT_IMPOSSIBLE;
  for (int32_t i = 0; i < num_tokens; i++) {
    if (tokens[i] < 0 || tokens[i] >= vocab_size) return TEXT_IMPOSSIBLE;
  }
  const int32_t length = model->engine->host.llama_detokenize(
      model->vocab, tokens, num_tokens, text, capacity, false, with_special != 0);
  return length < 0 ? -length : length;
}

int32_t ckv_llama_token_piece(ckv_llama_model *model, int32_t token, int32_t with_special,
                              char *text, int32_t capacity) {
  const ckvl_host_api *host = &model->engine->host;
  if (token < 0 || token >= host->llama_vocab_n_tokens(model->vocab) || !has_texts(model)) {
    return TEXT_IMPOSSIBLE;
  }
  const int32_t length =
      host->llama_token_to_piece(model->vocab, token, text, capacity, 0, with_special != 0);
  return length < 0 ? -length : length;
}

int32_t ckv_llama_is_end_of_generation(ckv_llama_model *model, int32_t token) {
  const ckvl_host_api *host = &model->engine->host;
  return token >= 0 && token < host->llama_vocab_n_tokens(model->vocab) &&
         host->llama_vocab_is_eog(model->vocab, token);
}
