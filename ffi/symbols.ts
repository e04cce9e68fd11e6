/**
 * The functions of `chunkkv.h`, in its order. A test compares every line with the header.
 *
 * Pointers to structs and results are `buffer`; handles, texts and memory that may be a device's are
 * `pointer`. The `_async` twins run on another thread (`nonblocking`).
 *
 * @module
 */

const WORKSPACE = {
  parameters: [
    /* ckv_context *context */ "pointer",
    /* const ckv_params *params */ "buffer",
    /* const ckv_layer *layers */ "buffer",
    /* int32_t num_layers */ "i32",
    /* int64_t *bytes */ "buffer",
  ],
  result: "i32",
} as const;

const SCORE = {
  parameters: [
    /* ckv_context *context */ "pointer",
    /* const ckv_params *params */ "buffer",
    /* const ckv_query_view *queries */ "buffer",
    /* const ckv_kv_view *keys */ "buffer",
    /* ckv_scores *scores */ "buffer",
  ],
  result: "i32",
} as const;

const SCORE_CHUNKS = {
  parameters: [
    /* ckv_context *context */ "pointer",
    /* const ckv_params *params */ "buffer",
    /* const ckv_query_view *queries */ "buffer",
    /* const ckv_kv_view *keys */ "buffer",
    /* float *chunk_scores */ "pointer",
    /* int64_t count */ "i64",
  ],
  result: "i32",
} as const;

const CHUNK_SCORES = {
  parameters: [
    /* ckv_context *context */ "pointer",
    /* const ckv_params *params */ "buffer",
    /* const ckv_scores *scores */ "buffer",
    /* float *chunk_scores */ "pointer",
    /* int64_t count */ "i64",
  ],
  result: "i32",
} as const;

const SELECT = {
  parameters: [
    /* ckv_context *context */ "pointer",
    /* const ckv_params *params */ "buffer",
    /* const ckv_scores *scores */ "buffer",
    /* ckv_kept *kept */ "buffer",
  ],
  result: "i32",
} as const;

const COMPACT = {
  parameters: [
    /* ckv_context *context */ "pointer",
    /* const ckv_kv_view *src */ "buffer",
    /* const ckv_kv_view *dst */ "buffer",
    /* const ckv_kept *kept */ "buffer",
  ],
  result: "i32",
} as const;

const COMPRESS = {
  parameters: [
    /* ckv_context *context */ "pointer",
    /* const ckv_params *params */ "buffer",
    /* const ckv_layer *layers */ "buffer",
    /* int32_t num_layers */ "i32",
    /* ckv_kept *kept */ "buffer",
  ],
  result: "i32",
} as const;

const COMPACT_LAYERS = {
  parameters: [
    /* ckv_context *context */ "pointer",
    /* const ckv_layer *layers */ "buffer",
    /* int32_t num_layers */ "i32",
    /* const ckv_kept *kept */ "buffer",
  ],
  result: "i32",
} as const;

const FINISH = {
  parameters: [/* ckv_context *context */ "pointer"],
  result: "i32",
} as const;

const COPY = {
  parameters: [
    /* ckv_context *context */ "pointer",
    /* void *to */ "pointer",
    /* const void *from */ "pointer",
    /* int64_t bytes */ "i64",
    /* int32_t kind */ "i32",
  ],
  result: "i32",
} as const;

/** The symbol table of libchunkkv. */
export const symbols = {
  ckv_abi_version: { parameters: [], result: "u32" },
  ckv_version: { parameters: [], result: "pointer" },
  ckv_status_name: { parameters: [/* int32_t status */ "i32"], result: "pointer" },
  ckv_method_name: { parameters: [/* int32_t method */ "i32"], result: "pointer" },
  ckv_dtype_name: { parameters: [/* int32_t dtype */ "i32"], result: "pointer" },
  ckv_isa_name: { parameters: [/* int32_t isa */ "i32"], result: "pointer" },
  ckv_isa_usable: { parameters: [/* int32_t isa */ "i32"], result: "i32" },
  ckv_row_bytes: {
    parameters: [/* int32_t dtype */ "i32", /* int32_t elements */ "i32"],
    result: "i64",
  },

  ckv_device_describe: {
    parameters: [
      /* int32_t device */ "i32",
      /* int32_t index */ "i32",
      /* char *text */ "buffer",
      /* int64_t bytes */ "i64",
    ],
    result: "i32",
  },

  ckv_device_find: {
    parameters: [
      /* const void *memory */ "pointer",
      /* int32_t *device */ "buffer",
      /* int32_t *index */ "buffer",
    ],
    result: "i32",
  },

  ckv_context_default_params: {
    parameters: [/* ckv_context_params *params */ "buffer"],
    result: "void",
  },
  ckv_context_create: {
    parameters: [
      /* const ckv_context_params *params */ "buffer",
      /* ckv_context **context */ "buffer",
    ],
    result: "i32",
  },
  ckv_context_free: { parameters: [/* ckv_context *context */ "pointer"], result: "void" },
  ckv_context_error: {
    parameters: [/* const ckv_context *context */ "pointer"],
    result: "pointer",
  },
  ckv_context_isa: { parameters: [/* const ckv_context *context */ "pointer"], result: "i32" },
  ckv_context_num_threads: {
    parameters: [/* const ckv_context *context */ "pointer"],
    result: "i32",
  },

  ckv_context_device: { parameters: [/* const ckv_context *context */ "pointer"], result: "i32" },

  ckv_context_set_stream: {
    parameters: [/* ckv_context *context */ "pointer", /* void *stream */ "pointer"],
    result: "i32",
  },
  ckv_context_set_workspace: {
    parameters: [
      /* ckv_context *context */ "pointer",
      /* void *memory */ "pointer",
      /* int64_t bytes */ "i64",
    ],
    result: "i32",
  },
  ckv_context_finish: FINISH,
  ckv_context_finish_async: { name: "ckv_context_finish", nonblocking: true, ...FINISH },
  ckv_device_alloc: {
    parameters: [
      /* ckv_context *context */ "pointer",
      /* int64_t bytes */ "i64",
      /* void **memory */ "buffer",
    ],
    result: "i32",
  },
  ckv_device_free: {
    parameters: [/* ckv_context *context */ "pointer", /* void *memory */ "pointer"],
    result: "i32",
  },
  ckv_device_copy: COPY,
  ckv_device_copy_async: { name: "ckv_device_copy", nonblocking: true, ...COPY },

  ckv_default_params: { parameters: [/* ckv_params *params */ "buffer"], result: "void" },
  ckv_budget_for: {
    parameters: [/* double keep */ "f64", /* int32_t kv_len */ "i32"],
    result: "i32",
  },
  ckv_score_heads: {
    parameters: [/* const ckv_params *params */ "buffer", /* int32_t num_kv_heads */ "i32"],
    result: "i32",
  },
  ckv_kept_heads: {
    parameters: [/* const ckv_params *params */ "buffer", /* int32_t num_kv_heads */ "i32"],
    result: "i32",
  },
  ckv_layer_budget: {
    parameters: [
      /* const ckv_params *params */ "buffer",
      /* int32_t kv_len */ "i32",
      /* int32_t layer */ "i32",
      /* int32_t num_layers */ "i32",
    ],
    result: "i32",
  },
  ckv_kept_capacity: {
    parameters: [/* const ckv_params *params */ "buffer", /* int32_t kv_len */ "i32"],
    result: "i32",
  },

  ckv_workspace_size: WORKSPACE,
  ckv_workspace_best: WORKSPACE,
  ckv_score: SCORE,
  ckv_score_async: { name: "ckv_score", nonblocking: true, ...SCORE },
  ckv_chunk_scores: CHUNK_SCORES,
  ckv_chunk_scores_async: { name: "ckv_chunk_scores", nonblocking: true, ...CHUNK_SCORES },
  ckv_score_chunks: SCORE_CHUNKS,
  ckv_score_chunks_async: { name: "ckv_score_chunks", nonblocking: true, ...SCORE_CHUNKS },
  ckv_select: SELECT,
  ckv_select_async: { name: "ckv_select", nonblocking: true, ...SELECT },
  ckv_compact: COMPACT,
  ckv_compact_async: { name: "ckv_compact", nonblocking: true, ...COMPACT },
  ckv_compress: COMPRESS,
  ckv_compress_async: { name: "ckv_compress", nonblocking: true, ...COMPRESS },
  ckv_select_layers: COMPRESS,
  ckv_select_layers_async: { name: "ckv_select_layers", nonblocking: true, ...COMPRESS },
  ckv_compact_layers: COMPACT_LAYERS,
  ckv_compact_layers_async: { name: "ckv_compact_layers", nonblocking: true, ...COMPACT_LAYERS },
} as const satisfies Deno.ForeignLibraryInterface;
