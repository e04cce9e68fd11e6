// The C bridge to llama.cpp: one flat, stable ABI for the Deno binding. It mirrors no llama.h struct;
// sizes, numbers and texts are all that cross it.
//
// - Objects: engine (a loaded libllama) <- model <- context, samplers and snapshots. Each *_free drops the
//   caller's reference only; an engine or model lives on while something made from it does.
// - *_new only fails for want of memory and then returns NULL; *_error tells why the object's last
//   failed call failed, in a text that it owns.
// - One call at a time per object, else CKV_ERROR_BUSY; *_cancel and *_progress are always allowed.
// - Nothing prints, and nothing is thrown, exits or aborts.
#ifndef CKV_LLAMA_BRIDGE_H
#define CKV_LLAMA_BRIDGE_H

#include <stdint.h>

#include <chunkkv.h>

#if defined(_WIN32)
#  define CKV_LLAMA_API __declspec(dllexport)
#else
#  define CKV_LLAMA_API __attribute__((visibility("default")))
#endif

#define CKV_LLAMA_ABI_VERSION 1

typedef struct ckv_llama_engine ckv_llama_engine;
typedef struct ckv_llama_model ckv_llama_model;
typedef struct ckv_llama_context ckv_llama_context;
typedef struct ckv_llama_sampler ckv_llama_sampler;
typedef struct ckv_llama_snapshot ckv_llama_snapshot;

typedef struct ckv_llama_model_params {
  uint32_t struct_size;
  int32_t gpu_layers;  // layers to keep on a GPU, if the engine has one; -1: all
  int32_t use_mmap;    // 1: map the file, 0: read it
  int32_t reserved;
} ckv_llama_model_params;

typedef struct ckv_llama_model_info {
  uint32_t struct_size;
  int32_t vocab_size;
  int32_t trained_context;  // tokens
  int32_t num_layers;
  int32_t embedding_size;
  int32_t num_q_heads;
  int32_t num_kv_heads;
  int32_t sliding_window;  // tokens; 0: none
  int32_t bos;             // token that begins a text; -1: none
  int32_t eos;             // token that ends a text; -1: none
  int32_t eot;             // token that ends a turn; -1: none
  int32_t adds_bos;        // 1: tokenising puts bos first
  int64_t size_bytes;
  int64_t num_parameters;
} ckv_llama_model_info;

typedef struct ckv_llama_context_params {
  uint32_t struct_size;
  int32_t context_size;      // cells of the KV cache; 0: what the model was trained for
  int32_t batch_size;        // most tokens in one decode call
  int32_t micro_batch_size;  // most tokens in one graph
  int32_t num_threads;       // 0: one per core that this process may use
  int32_t key_type;          // ckv_dtype
  int32_t value_type;        // ckv_dtype
  int32_t num_sequences;
  int32_t flash_attention;      // 0: off; then nothing can be compressed
  int32_t full_sliding_window;  // 1: sliding-window layers keep all cells, so positions can shift
  int32_t isa;                  // ckv_isa of the compression
  int32_t max_outputs;  // most tokens that ckv_llama_score decodes at once; 0: num_sequences
  int32_t accumulate_attention;  // 1: adds up the attention of all queries, which h2o chooses by
} ckv_llama_context_params;

typedef struct ckv_llama_context_info {
  uint32_t struct_size;
  int32_t context_size;
  int32_t batch_size;
  int32_t micro_batch_size;
  int32_t num_sequences;
  int32_t num_threads;
  int32_t isa;
  int32_t is_unhooked;  // 1: graphs of which nothing is captured run without a callback (so far)
} ckv_llama_context_info;

typedef struct ckv_llama_sampler_params {
  uint32_t struct_size;
  float temperature;     // 0: always the most likely token
  int32_t top_k;         // 0: all
  float top_p;           // 1: all
  float min_p;           // 0: all
  float repeat_penalty;  // 1: none
  int32_t repeat_last;   // tokens that the penalty looks back at
  int32_t ignore_end;    // 1: never picks a token that ends the generation
  uint32_t seed;
} ckv_llama_sampler_params;

typedef struct ckv_llama_report {
  uint32_t struct_size;
  int32_t before;       // tokens in the cache
  int32_t after;        // of the largest layer
  int32_t num_layers;   // whose cache became shorter
  int32_t num_sliding;  // layers with a sliding window, left as they were
  int32_t max_heads;    // index sets per layer
  int64_t bytes_freed;
  double select_ms;   // scores and indices
  double compact_ms;  // rows moved, cells freed
  double refresh_ms;  // the window's queries computed again, 0 if they were there
} ckv_llama_report;

// ---- The bridge itself --------------------------------------------------------------------------

CKV_LLAMA_API uint32_t ckv_llama_abi_version(void);
CKV_LLAMA_API const char *ckv_llama_release(void);  // of llama.cpp that this was compiled for

// ---- Engine -------------------------------------------------------------------------------------

CKV_LLAMA_API ckv_llama_engine *ckv_llama_engine_new(void);
CKV_LLAMA_API void ckv_llama_engine_free(ckv_llama_engine *engine);
CKV_LLAMA_API const char *ckv_llama_engine_error(const ckv_llama_engine *engine);

// Opens libllama at `path` and the compute backends in its folder `directory`.
// CKV_ERROR_UNSUPPORTED: it is of another release. CKV_ERROR_ENGINE: it cannot be loaded.
CKV_LLAMA_API ckv_status ckv_llama_engine_open(ckv_llama_engine *engine, const char *path,
                                               const char *directory);
CKV_LLAMA_API const char *ckv_llama_engine_version(const ckv_llama_engine *engine);

// ---- Model --------------------------------------------------------------------------------------

CKV_LLAMA_API ckv_llama_model *ckv_llama_model_new(ckv_llama_engine *engine);
CKV_LLAMA_API void ckv_llama_model_free(ckv_llama_model *model);
CKV_LLAMA_API const char *ckv_llama_model_error(const ckv_llama_model *model);

CKV_LLAMA_API ckv_status ckv_llama_model_load(ckv_llama_model *model, const char *path,
                                              const ckv_llama_model_params *params);
CKV_LLAMA_API double ckv_llama_model_progress(const ckv_llama_model *model);  // 0 to 1
CKV_LLAMA_API void ckv_llama_model_cancel(ckv_llama_model *model);
CKV_LLAMA_API ckv_status ckv_llama_model_get_info(ckv_llama_model *model,
                                                  ckv_llama_model_info *info);

// Texts are written without a terminator. These return the bytes that the text has, at most
// `capacity` of which are written; -1: there is none, -2: it cannot be made.
CKV_LLAMA_API int32_t ckv_llama_model_description(ckv_llama_model *model, char *text,
                                                  int32_t capacity);
CKV_LLAMA_API int32_t ckv_llama_model_metadata(ckv_llama_model *model, const char *key, char *text,
                                               int32_t capacity);
CKV_LLAMA_API int32_t ckv_llama_model_chat_template(ckv_llama_model *model, char *text,
                                                    int32_t capacity);

// messages: role and content of each, every text ended by a zero byte. chat_template NULL: the
// model's own.
CKV_LLAMA_API int32_t ckv_llama_apply_chat_template(ckv_llama_model *model,
                                                    const char *chat_template, const char *messages,
                                                    int32_t messages_bytes,
                                                    int32_t open_assistant_turn, char *text,
                                                    int32_t capacity);

// Returns the number of tokens, at most `capacity` of which are written; -1: the text is too long, or
// of fewer than 0 bytes.
CKV_LLAMA_API int32_t ckv_llama_tokenize(ckv_llama_model *model, const char *text,
                                         int32_t text_bytes, int32_t add_special,
                                         int32_t parse_special, int32_t *tokens, int32_t capacity);
// -2 where a token is none of the vocabulary's.
CKV_LLAMA_API int32_t ckv_llama_detokenize(ckv_llama_model *model, const int32_t *tokens,
                                           int32_t num_tokens, int32_t with_special, char *text,
                                           int32_t capacity);
CKV_LLAMA_API int32_t ckv_llama_token_piece(ckv_llama_model *model, int32_t token,
                                            int32_t with_special, char *text, int32_t capacity);
CKV_LLAMA_API int32_t ckv_llama_is_end_of_generation(ckv_llama_model *model, int32_t token);

// ---- Context ------------------------------------------------------------------------------------

CKV_LLAMA_API ckv_llama_context *ckv_llama_context_new(ckv_llama_model *model);
CKV_LLAMA_API void ckv_llama_context_free(ckv_llama_context *context);
CKV_LLAMA_API const char *ckv_llama_context_error(const ckv_llama_context *context);

CKV_LLAMA_API ckv_status ckv_llama_context_init(ckv_llama_context *context,
                                                const ckv_llama_context_params *params);
CKV_LLAMA_API ckv_status ckv_llama_context_get_info(ckv_llama_context *context,
                                                    ckv_llama_context_info *info);

// A call that decodes just now ends with CKV_ERROR_CANCELLED; no effect otherwise.
CKV_LLAMA_API void ckv_llama_context_cancel(ckv_llama_context *context);

// ---- Sequences ----------------------------------------------------------------------------------
// A sequence's length counts positions, dropped tokens included; its cells count what is cached.
// What counts something returns -status if it fails. Lengths, cells, bytes and positions are there
// between the steps of a prompt, too.

CKV_LLAMA_API int32_t ckv_llama_sequence_length(ckv_llama_context *context, int32_t sequence);
CKV_LLAMA_API int32_t ckv_llama_sequence_cells(ckv_llama_context *context, int32_t sequence);
CKV_LLAMA_API int64_t ckv_llama_sequence_bytes(ckv_llama_context *context, int32_t sequence);

// The position of each cached token, rising; returns their number.
CKV_LLAMA_API int32_t ckv_llama_sequence_positions(ckv_llama_context *context, int32_t sequence,
                                                   int32_t *positions, int32_t capacity);

// Removes positions [from, to); to -1: to the end. CKV_ERROR_UNSUPPORTED: not all of them, and from
// lies where a compression has left each layer tokens of its own: before the newest tokens that all
// layers kept unbroken.
CKV_LLAMA_API ckv_status ckv_llama_sequence_remove(ckv_llama_context *context, int32_t sequence,
                                                   int32_t from, int32_t to);
// Afterwards both share cells, and neither can be compressed until the other one is removed.
CKV_LLAMA_API ckv_status ckv_llama_sequence_copy(ckv_llama_context *context, int32_t sequence,
                                                 int32_t to);
// Adds `delta` to all positions; keys are rotated at the next decode call.
CKV_LLAMA_API ckv_status ckv_llama_sequence_shift(ckv_llama_context *context, int32_t sequence,
                                                  int32_t delta);

// The engine's serialised state of a sequence, for tests and tools. Sizes are -status on failure.
CKV_LLAMA_API int64_t ckv_llama_state_size(ckv_llama_context *context, int32_t sequence);
CKV_LLAMA_API int64_t ckv_llama_state_get(ckv_llama_context *context, int32_t sequence,
                                          uint8_t *data, int64_t size);
// tokens: the sequence's newest tokens, oldest first, as far as known: from them the window's queries
// can be computed again, without which nothing can be compressed before the next prompt. May be NULL.
// CKV_ERROR_INVALID_ARGUMENT: not a state that fits this context; the sequence is as it was.
// CKV_ERROR_ENGINE: the engine did not take it; the sequence is empty.
CKV_LLAMA_API ckv_status ckv_llama_state_set(ckv_llama_context *context, int32_t sequence,
                                             const uint8_t *data, int64_t size,
                                             const int32_t *tokens, int32_t num_tokens);

// The attention that each cached token has got from all queries so far, of a context with
// accumulate_attention: i32 magic "CKVA", tokens, layers, 0, then of each layer without a sliding
// window i32 number, i32 kv heads, f64 [kv heads][tokens]; tokens by position, sums over the queries
// and a kv head's query heads. It goes with the engine's state: set it after that. Sizes are -status on
// failure: CKV_ERROR_INVALID_ARGUMENT if queries are missing in it, and why.
CKV_LLAMA_API int64_t ckv_llama_attention_size(ckv_llama_context *context, int32_t sequence);
CKV_LLAMA_API int64_t ckv_llama_attention_get(ckv_llama_context *context, int32_t sequence,
                                              uint8_t *data, int64_t size);
CKV_LLAMA_API ckv_status ckv_llama_attention_set(ckv_llama_context *context, int32_t sequence,
                                                 const uint8_t *data, int64_t size);

// A sequence kept aside in memory: its state, tokens, newest logits, queries and accumulated attention.
// `take` replaces what the snapshot held. Restored in the context that it was taken from, the sequence
// can be compressed after the next token or prompt just as the original could; in another one of the
// same model and cache types its queries are not known. Errors are the context's.
CKV_LLAMA_API ckv_llama_snapshot *ckv_llama_snapshot_new(ckv_llama_model *model);
CKV_LLAMA_API void ckv_llama_snapshot_free(ckv_llama_snapshot *snapshot);
CKV_LLAMA_API ckv_status ckv_llama_snapshot_take(ckv_llama_context *context, int32_t sequence,
                                                 ckv_llama_snapshot *snapshot);
CKV_LLAMA_API ckv_status ckv_llama_snapshot_restore(ckv_llama_context *context, int32_t sequence,
                                                    const ckv_llama_snapshot *snapshot);

// ---- Decoding -----------------------------------------------------------------------------------

// A prompt goes in by steps of at most batch_size tokens. Either all of it gets in, or a failed or
// cancelled step, or prefill_undo, leaves the sequence as begin found it.
CKV_LLAMA_API ckv_status ckv_llama_prefill_begin(ckv_llama_context *context, int32_t sequence,
                                                 int32_t num_tokens);
CKV_LLAMA_API ckv_status ckv_llama_prefill_step(ckv_llama_context *context, const int32_t *tokens,
                                                int32_t num_tokens);
CKV_LLAMA_API ckv_status ckv_llama_prefill_undo(ckv_llama_context *context);

// The sequence's newest logits, f32 [vocab_size].
CKV_LLAMA_API ckv_status ckv_llama_logits(ckv_llama_context *context, int32_t sequence,
                                          float *logits, int32_t count);

// The logits after each of some tokens if the sequence went on with them, f32
// [num_tokens][vocab_size]; the sequence stays what it was.
CKV_LLAMA_API ckv_status ckv_llama_score(ckv_llama_context *context, int32_t sequence,
                                         const int32_t *tokens, int32_t num_tokens, float *logits);

CKV_LLAMA_API ckv_llama_sampler *ckv_llama_sampler_new(ckv_llama_model *model,
                                                       const ckv_llama_sampler_params *params);
CKV_LLAMA_API void ckv_llama_sampler_free(ckv_llama_sampler *sampler);

// Picks the next token from the sequence's logits and decodes it, unless it ends the generation
// (*is_end = 1): that one is not decoded.
CKV_LLAMA_API ckv_status ckv_llama_generate_step(ckv_llama_context *context, int32_t sequence,
                                                 ckv_llama_sampler *sampler, int32_t *token,
                                                 int32_t *is_end);

// The same for `count` different sequences, all decoded in one batch; samplers: a ckv_llama_sampler *
// for each. No queries are captured.
CKV_LLAMA_API ckv_status ckv_llama_generate_step_each(ckv_llama_context *context, int32_t count,
                                                      const int32_t *sequences,
                                                      const uint64_t *samplers, int32_t *tokens,
                                                      int32_t *are_ends);

// ---- Compression --------------------------------------------------------------------------------

// Keeps params->budget tokens of the sequence, or the fraction `keep` if that budget is 0. params'
// scale and logit_softcap are the model's own. On failure the sequence is as it was, unless the
// error text says that it was lost. Index sets: chunkkv and streaming_llm one per layer; snapkv,
// pyramidkv and h2o one per kv head, as published.
//
// Layers share cells. With pyramidkv there are as many as the largest layer keeps; from the other
// layers the surplus cells are hidden by masking them, graph by graph: that saves no memory, and costs
// time in every decode call of the sequence. It needs the cache in host memory.
CKV_LLAMA_API ckv_status ckv_llama_compress(ckv_llama_context *context, int32_t sequence,
                                            const ckv_params *params, double keep,
                                            ckv_llama_report *report);

// Keeps given tokens: indices into the cached tokens, i32 [num_layers][num_heads][num_kept], rising,
// the last one the newest token. num_layers: the global layers; num_heads: 1, or one set per kv head.
CKV_LLAMA_API ckv_status ckv_llama_compact(ckv_llama_context *context, int32_t sequence,
                                           int32_t num_layers, int32_t num_heads, int32_t num_kept,
                                           const int32_t *indices, ckv_llama_report *report);

// What the last of those two kept: the layer's number in the model and its index sets. `layer` counts
// compacted layers. Returns the length of a set, -1: there is none, or another call goes on.
CKV_LLAMA_API int32_t ckv_llama_kept(ckv_llama_context *context, int32_t layer, int32_t head,
                                     int32_t *number, int32_t *indices, int32_t capacity);

#endif
