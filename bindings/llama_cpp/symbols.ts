/**
 * The functions of `csrc/bridge.h`, in its order. A test compares every line with the header.
 *
 * Pointers to structs and arrays are `buffer`, objects and texts that C owns are `pointer`. The
 * `_async` twins run on another thread (`nonblocking`).
 *
 * @module
 */

const MODEL = /* ckv_llama_model *model */ "pointer";
const CONTEXT = /* ckv_llama_context *context */ "pointer";
const SNAPSHOT = /* ckv_llama_snapshot *snapshot */ "pointer";
const SEQUENCE = /* int32_t sequence */ "i32";
const TEXT = /* char *text */ "buffer";
const CAPACITY = /* int32_t capacity */ "i32";

const COMPRESS = {
  parameters: [
    CONTEXT,
    SEQUENCE,
    /* const ckv_params *params */ "buffer",
    /* double keep */ "f64",
    /* ckv_llama_report *report */ "buffer",
  ],
  result: "i32",
} as const;

/** The bridge's symbol table. */
export const symbols = {
  ckv_llama_abi_version: { parameters: [], result: "u32" },
  ckv_llama_release: { parameters: [], result: "pointer" },

  ckv_llama_engine_new: { parameters: [], result: "pointer" },
  ckv_llama_engine_free: { parameters: [/* ckv_llama_engine *engine */ "pointer"], result: "void" },
  ckv_llama_engine_error: {
    parameters: [/* const ckv_llama_engine *engine */ "pointer"],
    result: "pointer",
  },
  ckv_llama_engine_open: {
    parameters: [
      /* ckv_llama_engine *engine */ "pointer",
      /* const char *path */ "buffer",
      /* const char *directory */ "buffer",
    ],
    result: "i32",
  },
  ckv_llama_engine_version: {
    parameters: [/* const ckv_llama_engine *engine */ "pointer"],
    result: "pointer",
  },

  ckv_llama_model_new: {
    parameters: [/* ckv_llama_engine *engine */ "pointer"],
    result: "pointer",
  },
  ckv_llama_model_free: { parameters: [MODEL], result: "void" },
  ckv_llama_model_error: {
    parameters: [/* const ckv_llama_model *model */ "pointer"],
    result: "pointer",
  },
  ckv_llama_model_load_async: {
    name: "ckv_llama_model_load",
    parameters: [
      MODEL,
      /* const char *path */ "buffer",
      /* const ckv_llama_model_params *params */ "buffer",
    ],
    result: "i32",
    nonblocking: true,
  },
  ckv_llama_model_progress: {
    parameters: [/* const ckv_llama_model *model */ "pointer"],
    result: "f64",
  },
  ckv_llama_model_cancel: { parameters: [MODEL], result: "void" },
  ckv_llama_model_get_info: {
    parameters: [MODEL, /* ckv_llama_model_info *info */ "buffer"],
    result: "i32",
  },
  ckv_llama_model_description: { parameters: [MODEL, TEXT, CAPACITY], result: "i32" },
  ckv_llama_model_metadata: {
    parameters: [MODEL, /* const char *key */ "buffer", TEXT, CAPACITY],
    result: "i32",
  },
  ckv_llama_model_chat_template: { parameters: [MODEL, TEXT, CAPACITY], result: "i32" },
  ckv_llama_apply_chat_template: {
    parameters: [
      MODEL,
      /* const char *chat_template */ "buffer",
      /* const char *messages */ "buffer",
      /* int32_t messages_bytes */ "i32",
      /* int32_t open_assistant_turn */ "i32",
      TEXT,
      CAPACITY,
    ],
    result: "i32",
  },
  ckv_llama_tokenize: {
    parameters: [
      MODEL,
      /* const char *text */ "buffer",
      /* int32_t text_bytes */ "i32",
      /* int32_t add_special */ "i32",
      /* int32_t parse_special */ "i32",
      /* int32_t *tokens */ "buffer",
      CAPACITY,
    ],
    result: "i32",
  },
  ckv_llama_detokenize: {
    parameters: [
      MODEL,
      /* const int32_t *tokens */ "buffer",
      /* int32_t num_tokens */ "i32",
      /* int32_t with_special */ "i32",
      TEXT,
      CAPACITY,
    ],
    result: "i32",
  },
  ckv_llama_token_piece: {
    parameters: [
      MODEL,
      /* int32_t token */ "i32",
      /* int32_t with_special */ "i32",
      TEXT,
      CAPACITY,
    ],
    result: "i32",
  },
  ckv_llama_is_end_of_generation: { parameters: [MODEL, /* int32_t token */ "i32"], result: "i32" },

  ckv_llama_context_new: { parameters: [MODEL], result: "pointer" },
  ckv_llama_context_free: { parameters: [CONTEXT], result: "void" },
  ckv_llama_context_error: {
    parameters: [/* const ckv_llama_context *context */ "pointer"],
    result: "pointer",
  },
  ckv_llama_context_init: {
    parameters: [CONTEXT, /* const ckv_llama_context_params *params */ "buffer"],
    result: "i32",
  },
  ckv_llama_context_get_info: {
    parameters: [CONTEXT, /* ckv_llama_context_info *info */ "buffer"],
    result: "i32",
  },
  ckv_llama_context_cancel: { parameters: [CONTEXT], result: "void" },

  ckv_llama_sequence_length: { parameters: [CONTEXT, SEQUENCE], result: "i32" },
  ckv_llama_sequence_cells: { parameters: [CONTEXT, SEQUENCE], result: "i32" },
  ckv_llama_sequence_bytes: { parameters: [CONTEXT, SEQUENCE], result: "i64" },
  ckv_llama_sequence_positions: {
    parameters: [CONTEXT, SEQUENCE, /* int32_t *positions */ "buffer", CAPACITY],
    result: "i32",
  },
  ckv_llama_sequence_remove: {
    parameters: [CONTEXT, SEQUENCE, /* int32_t from */ "i32", /* int32_t to */ "i32"],
    result: "i32",
  },
  ckv_llama_sequence_copy: {
    parameters: [CONTEXT, SEQUENCE, /* int32_t to */ "i32"],
    result: "i32",
  },
  ckv_llama_sequence_shift: {
    parameters: [CONTEXT, SEQUENCE, /* int32_t delta */ "i32"],
    result: "i32",
  },
  ckv_llama_state_size: { parameters: [CONTEXT, SEQUENCE], result: "i64" },
  ckv_llama_state_get: {
    parameters: [CONTEXT, SEQUENCE, /* uint8_t *data */ "buffer", /* int64_t size */ "i64"],
    result: "i64",
  },
  ckv_llama_state_set: {
    parameters: [
      CONTEXT,
      SEQUENCE,
      /* const uint8_t *data */ "buffer",
      /* int64_t size */ "i64",
      /* const int32_t *tokens */ "buffer",
      /* int32_t num_tokens */ "i32",
    ],
    result: "i32",
  },
  ckv_llama_attention_size: { parameters: [CONTEXT, SEQUENCE], result: "i64" },
  ckv_llama_attention_get: {
    parameters: [CONTEXT, SEQUENCE, /* uint8_t *data */ "buffer", /* int64_t size */ "i64"],
    result: "i64",
  },
  ckv_llama_attention_set: {
    parameters: [CONTEXT, SEQUENCE, /* const uint8_t *data */ "buffer", /* int64_t size */ "i64"],
    result: "i32",
  },

  ckv_llama_snapshot_new: { parameters: [MODEL], result: "pointer" },
  ckv_llama_snapshot_free: { parameters: [SNAPSHOT], result: "void" },
  ckv_llama_snapshot_take: { parameters: [CONTEXT, SEQUENCE, SNAPSHOT], result: "i32" },
  ckv_llama_snapshot_restore: { parameters: [CONTEXT, SEQUENCE, SNAPSHOT], result: "i32" },

  ckv_llama_prefill_begin: {
    parameters: [CONTEXT, SEQUENCE, /* int32_t num_tokens */ "i32"],
    result: "i32",
  },
  ckv_llama_prefill_step_async: {
    name: "ckv_llama_prefill_step",
    parameters: [
      CONTEXT,
      /* const int32_t *tokens */ "buffer",
      /* int32_t num_tokens */ "i32",
    ],
    result: "i32",
    nonblocking: true,
  },
  ckv_llama_prefill_undo: { parameters: [CONTEXT], result: "i32" },
  ckv_llama_logits: {
    parameters: [CONTEXT, SEQUENCE, /* float *logits */ "buffer", /* int32_t count */ "i32"],
    result: "i32",
  },
  ckv_llama_score_async: {
    name: "ckv_llama_score",
    parameters: [
      CONTEXT,
      SEQUENCE,
      /* const int32_t *tokens */ "buffer",
      /* int32_t num_tokens */ "i32",
      /* float *logits */ "buffer",
    ],
    result: "i32",
    nonblocking: true,
  },
  ckv_llama_sampler_new: {
    parameters: [MODEL, /* const ckv_llama_sampler_params *params */ "buffer"],
    result: "pointer",
  },
  ckv_llama_sampler_free: {
    parameters: [/* ckv_llama_sampler *sampler */ "pointer"],
    result: "void",
  },
  ckv_llama_generate_step_async: {
    name: "ckv_llama_generate_step",
    parameters: [
      CONTEXT,
      SEQUENCE,
      /* ckv_llama_sampler *sampler */ "pointer",
      /* int32_t *token */ "buffer",
      /* int32_t *is_end */ "buffer",
    ],
    result: "i32",
    nonblocking: true,
  },
  ckv_llama_generate_step_each_async: {
    name: "ckv_llama_generate_step_each",
    parameters: [
      CONTEXT,
      /* int32_t count */ "i32",
      /* const int32_t *sequences */ "buffer",
      /* const uint64_t *samplers */ "buffer",
      /* int32_t *tokens */ "buffer",
      /* int32_t *are_ends */ "buffer",
    ],
    result: "i32",
    nonblocking: true,
  },

  ckv_llama_compress: COMPRESS,
  ckv_llama_compress_async: { ...COMPRESS, name: "ckv_llama_compress", nonblocking: true },
  ckv_llama_compact: {
    parameters: [
      CONTEXT,
      SEQUENCE,
      /* int32_t num_layers */ "i32",
      /* int32_t num_heads */ "i32",
      /* int32_t num_kept */ "i32",
      /* const int32_t *indices */ "buffer",
      /* ckv_llama_report *report */ "buffer",
    ],
    result: "i32",
  },
  ckv_llama_kept: {
    parameters: [
      CONTEXT,
      /* int32_t layer */ "i32",
      /* int32_t head */ "i32",
      /* int32_t *number */ "buffer",
      /* int32_t *indices */ "buffer",
      CAPACITY,
    ],
    result: "i32",
  },
} as const satisfies Deno.ForeignLibraryInterface;
