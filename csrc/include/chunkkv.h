// chunkkv: KV-cache compression by semantic chunks (ChunkKV, arXiv 2502.00299).
//
// The data's way, one call per stage:
//
//   ckv_score         queries, keys   -> token scores
//   ckv_chunk_scores  token scores    -> chunk scores   (for inspection; ckv_select does this itself)
//   ckv_score_chunks  queries, keys   -> chunk scores   (the two above in one)
//   ckv_select        token scores    -> kept indices
//   ckv_compact       kept indices    -> rows moved
//   ckv_compress      all of it for every layer of a model, with layer-wise index reuse; in two
//                     halves ckv_select_layers (score, select) and ckv_compact_layers
//
// Contracts that hold for every call:
// - Nothing crosses this boundary but a ckv_status: no exception, exit, abort or print.
// - A call that fails has moved no row. Scores and indices handed in as outputs are then undefined.
// - A context serves one call at a time; a second one meanwhile returns CKV_ERROR_BUSY.
//   Different contexts are independent of each other.
// - The library keeps no pointer that it was handed after the call returns.
// - Structs start with struct_size = sizeof(the struct); ckv_*_default_params fills it in.
// - Sizes are counts of elements unless the name says bytes; strides are always bytes.
//
// A context of CKV_CUDA works on device memory and queues its work; what differs from the CPU:
// - Everything that a view, scores or kept point to is device memory: data, log_sum_exp, kv_lens,
//   block_table, indices, lens. It stays in place until the queued work is done.
// - A stage returns when its work is queued on the context's stream. What only device memory can
//   tell (NaN, a block table entry or an index out of range) is found by kernels: no stage after
//   that moves a row, and ckv_context_finish says what it was.
// - kv_lens of all layers of ckv_compress and ckv_select_layers are one array. Blocks that are written
//   appear once in a block table, and not among the blocks that are read: nobody checks.
// - With a workspace that the caller has set, a stage neither allocates nor waits, so that a CUDA
//   graph can capture it. Without one the context has its own, which grows when a stage needs more.
#ifndef CHUNKKV_H
#define CHUNKKV_H

#include <stdint.h>

#if defined(_WIN32)
#  if defined(CKV_BUILD)
#    define CKV_API __declspec(dllexport)
#  else
#    define CKV_API __declspec(dllimport)
#  endif
#else
#  define CKV_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

// Raised whenever a struct or a function changes in a way that old callers would notice.
#define CKV_ABI_VERSION 2

typedef enum ckv_status {
  CKV_OK = 0,
  CKV_ERROR_INVALID_ARGUMENT = 1,  // a value out of its range; the context's error text names it
  CKV_ERROR_OUT_OF_MEMORY = 2,     // an allocation failed
  CKV_ERROR_UNSUPPORTED = 3,       // valid, but not built in or not possible on this machine
  CKV_ERROR_OUT_OF_BOUNDS = 4,     // a view reaches outside the bytes that it declares
  CKV_ERROR_NUMERIC = 5,           // NaN in queries or keys, or a row of logits that are all -inf
  CKV_ERROR_BUSY = 6,              // the context is inside another call
  CKV_ERROR_ENGINE = 7,            // an inference engine refused or failed a step
  CKV_ERROR_CANCELLED = 8,         // the caller asked to stop
} ckv_status;

// Element types. Keys are read in any of them; rows are moved as bytes, so values may have any.
typedef enum ckv_dtype {
  CKV_F32 = 0,
  CKV_F16 = 1,
  CKV_BF16 = 2,
  CKV_Q8_0 = 3,     // ggml: 32 elements in 34 bytes: f16 scale, int8[32]
  CKV_Q4_0 = 4,     // ggml: 32 elements in 18 bytes: f16 scale, 16 x two nibbles, low half first
  CKV_F8_E4M3 = 5,  // OCP e4m3fn, unit scale
} ckv_dtype;

typedef enum ckv_device {
  CKV_CPU = 0,
  CKV_CUDA = 1,
} ckv_device;

// Instruction sets of the CPU kernels, in rising preference.
typedef enum ckv_isa {
  CKV_ISA_BEST = -1,
  CKV_ISA_SERIAL = 0,  // portable C, double accumulation: the reference
  CKV_ISA_AVX2 = 1,    // AVX2 + FMA + F16C
  CKV_ISA_AVX512 = 2,  // AVX-512 F/BW/DQ/VL
  CKV_ISA_AVX512_BF16 = 3,
  CKV_ISA_NEON = 4,
  CKV_ISA_NEON_BF16 = 5,
} ckv_isa;

// How tokens are chosen. Numbers follow src/select/methods/methods.def.
typedef enum ckv_method {
  CKV_METHOD_FULL = 0,           // keep everything
  CKV_METHOD_STREAMING_LLM = 1,  // attention sinks + the newest tokens (arXiv 2309.17453)
  CKV_METHOD_SNAPKV = 2,         // pooled window attention, top-k per kv head (arXiv 2404.14469)
  CKV_METHOD_CHUNKKV = 3,        // whole chunks by window attention (arXiv 2502.00299)
  // Half of the budget by attention summed over all queries, per kv head, half the newest tokens
  // (arXiv 2306.14048). On the CPU.
  CKV_METHOD_H2O = 4,
  // snapkv with budgets that fall linearly over the layers (arXiv 2406.02069): ckv_layer_budget.
  // On the CPU.
  CKV_METHOD_PYRAMIDKV = 5,
} ckv_method;

// How the token scores of a chunk become its chunk score. The paper sums.
typedef enum ckv_chunk_reduce {
  CKV_REDUCE_SUM = 0,
  CKV_REDUCE_MEAN = 1,
  CKV_REDUCE_MAX = 2,
} ckv_chunk_reduce;

// What happens to the budget that whole chunks leave over.
typedef enum ckv_fill {
  // Keep exactly min(budget, n) tokens: the rest comes from the next best chunks, from each the
  // contiguous run with the highest sum. With budget < window the newest `budget` tokens stay.
  CKV_FILL_EXACT = 0,
  // The paper: whole chunks only, and always the whole window.
  CKV_FILL_NONE = 1,
} ckv_fill;

// The method and its settings; the same struct goes to every stage.
typedef struct ckv_params {
  uint32_t struct_size;
  int32_t method;        // ckv_method
  int32_t budget;        // tokens kept per kv head, observation window included; >= 1
  int32_t window;        // observation window w: newest tokens whose queries score the rest; 1..64
                         //                                     (snapkv, chunkkv, pyramidkv)
  int32_t chunk_size;    // c; >= 1                                              (chunkkv)
  int32_t chunk_reduce;  // ckv_chunk_reduce                                     (chunkkv)
  int32_t fill;          // ckv_fill                                             (chunkkv)
  int32_t layer_reuse;   // N_reuse: layers that share one index set; >= 1       (ckv_compress)
  int32_t pool_size;     // width of the average pooling of token scores; odd    (snapkv, pyramidkv)
  int32_t num_sinks;     // first tokens that always stay; >= 0                  (streaming_llm)
  float scale;           // logits = scale * q.k; 0 means 1 / sqrt(head_dim)
  float logit_softcap;   // logits = softcap * tanh(logits / softcap); 0 means none
  int32_t spread;        // tokens that share a score, its own first; 1..64             (chunkkv)
} ckv_params;

// The queries of the observation window, post-RoPE: the last `window` positions of each sequence,
// oldest first. A sequence shorter than the window uses its last kv_len rows. h2o takes any number of
// rows, for all of a prompt's queries as many as it has tokens, and no log_sum_exp.
// Element (b, h, i, j) is at data + b*stride_batch + h*stride_head + i*stride_row + j*sizeof(elem).
typedef struct ckv_query_view {
  uint32_t struct_size;
  int32_t dtype;  // CKV_F32, CKV_F16 or CKV_BF16
  int32_t device;
  int32_t batch;
  int32_t num_q_heads;  // a multiple of the keys' num_kv_heads
  int32_t window;
  int32_t head_dim;
  int32_t reserved;
  const void *data;
  int64_t size_bytes;  // bytes readable at data
  int64_t stride_batch;
  int64_t stride_head;
  int64_t stride_row;
  // Optional: log-sum-exp of each window row's logits over all keys it sees, f32 [batch,
  // num_q_heads, window], packed. With it one pass over the keys is enough.
  const float *log_sum_exp;
} ckv_query_view;

// The keys or the values of one layer: rows of head_dim elements, one per (sequence, head, token).
//   contiguous or strided (block_size = 0): row (b, h, t) is at
//     data + b*stride_batch + h*stride_head + t*stride_token
//   paged (block_size > 0): with s = block_table[b*max_blocks + t / block_size],
//     data + s*stride_block + (t % block_size)*stride_token + h*stride_head
// A cell list, as in llama.cpp's unified cache, is a block table with block_size 1.
typedef struct ckv_kv_view {
  uint32_t struct_size;
  int32_t dtype;
  int32_t device;
  int32_t batch;
  int32_t num_kv_heads;
  int32_t head_dim;  // a multiple of 32 for q8_0 and q4_0
  int32_t kv_len;    // tokens of each sequence; with kv_lens: the most of any
  int32_t block_size;
  void *data;
  int64_t size_bytes;  // bytes reachable at data: every row is checked against it
  int64_t stride_batch;
  int64_t stride_head;
  int64_t stride_token;
  int64_t stride_block;
  const int32_t *kv_lens;      // [batch], or NULL: kv_len each
  const int32_t *block_table;  // [batch, max_blocks]
  int32_t max_blocks;
  int32_t num_blocks;  // entries of block_table lie in [0, num_blocks)
} ckv_kv_view;

// Token scores: f32 [batch, num_heads, kv_len], packed. The newest `window` tokens have no score
// (they are always kept); their entries are 0. With h2o all tokens have one.
typedef struct ckv_scores {
  uint32_t struct_size;
  int32_t batch;
  int32_t num_heads;  // ckv_score_heads()
  int32_t kv_len;
  const int32_t *kv_lens;  // [batch], or NULL: kv_len each
  float *data;
  int64_t count;  // floats at data; >= batch * num_heads * kv_len
} ckv_scores;

// Kept token indices, ascending: i32 [batch, num_heads, capacity]; the first lens[b] are valid.
typedef struct ckv_kept {
  uint32_t struct_size;
  int32_t batch;
  int32_t num_heads;  // 1: one index set for all heads; else one per kv head
  int32_t capacity;   // >= ckv_kept_capacity()
  int32_t *indices;
  int32_t *lens;  // [batch]
} ckv_kept;

// One layer for the calls for all layers. queries may be NULL for a layer that reuses indices.
typedef struct ckv_layer {
  uint32_t struct_size;
  int32_t reserved;
  const ckv_query_view *queries;
  const ckv_kv_view *keys;
  const ckv_kv_view *values;  // NULL where values are a view of the keys (MLA)
} ckv_layer;

typedef struct ckv_context_params {
  uint32_t struct_size;
  int32_t num_threads;   // 0: one per core that this process may use
  int32_t isa;           // ckv_isa; CKV_ISA_BEST: the best that this CPU runs
  int32_t device;        // ckv_device: where views lie and work is done
  int32_t device_index;  // which CUDA device; 0 on the CPU
  int32_t reserved;
} ckv_context_params;

typedef struct ckv_context ckv_context;

typedef enum ckv_copy_kind {
  CKV_COPY_TO_DEVICE = 0,
  CKV_COPY_TO_HOST = 1,
  CKV_COPY_ON_DEVICE = 2,
} ckv_copy_kind;

// ---- The library itself -------------------------------------------------------------------------

CKV_API uint32_t ckv_abi_version(void);
CKV_API const char *ckv_version(void);  // "0.1.0"

CKV_API const char *ckv_status_name(int32_t status);  // "out_of_memory"; NULL if unknown

// Names by number, NULL past the end: what the .def lists hold.
CKV_API const char *ckv_method_name(int32_t method);
CKV_API const char *ckv_dtype_name(int32_t dtype);
CKV_API const char *ckv_isa_name(int32_t isa);
CKV_API int32_t ckv_isa_usable(int32_t isa);  // 1: built in and this CPU runs it

// Bytes of one row of `elements` elements, or -1 if the dtype is unknown or does not divide.
CKV_API int64_t ckv_row_bytes(int32_t dtype, int32_t elements);

// What a device is, for people: "NVIDIA H100 80GB HBM3, 79.2 GiB, compute capability 9.0, ...". If it
// cannot be used, the text says why. `bytes` are writable at `text`; 256 are enough for any.
// CKV_ERROR_UNSUPPORTED: no library for it, no driver, no device; CKV_ERROR_INVALID_ARGUMENT: index.
CKV_API ckv_status ckv_device_describe(int32_t device, int32_t index, char *text, int64_t bytes);

// Where memory lies: CKV_CUDA and the index of its device, or CKV_CPU and 0 for all that no CUDA driver
// knows as a device's. Nothing is read of it.
CKV_API ckv_status ckv_device_find(const void *memory, int32_t *device, int32_t *index);

// ---- Context ------------------------------------------------------------------------------------

CKV_API void ckv_context_default_params(ckv_context_params *params);

// On success *context is owned by the caller and freed with ckv_context_free. Why a device cannot be
// used: ckv_device_describe. num_threads and isa mean nothing to a context of CKV_CUDA.
CKV_API ckv_status ckv_context_create(const ckv_context_params *params, ckv_context **context);
CKV_API void ckv_context_free(ckv_context *context);  // NULL is fine

// Why the last call on this context failed: what was expected and what was found. Owned by the
// context, valid until its next call; "" after a success.
CKV_API const char *ckv_context_error(const ckv_context *context);
CKV_API int32_t ckv_context_isa(const ckv_context *context);
CKV_API int32_t ckv_context_num_threads(const ckv_context *context);
CKV_API int32_t ckv_context_device(const ckv_context *context);

// ---- Devices: these calls need a context of CKV_CUDA, except ckv_context_finish -----------------

// The cudaStream_t that work is queued on from now on; NULL: the default stream. Work that is
// queued on the old one goes on; the caller puts the two in order.
CKV_API ckv_status ckv_context_set_stream(ckv_context *context, void *stream);

// Device memory, 256-byte aligned, that stages work in until another is set; its first bytes are
// cleared on the stream. The caller keeps it until the queued work is done. memory NULL and bytes 0:
// the context's own again.
CKV_API ckv_status ckv_context_set_workspace(ckv_context *context, void *memory, int64_t bytes);

// Waits until all queued work is done and says what kernels found since the last time. On the CPU
// there is nothing to wait for.
CKV_API ckv_status ckv_context_finish(ckv_context *context);

// Memory of the context's device, for hosts without a CUDA runtime of their own. Freeing waits for
// the device; NULL is fine.
CKV_API ckv_status ckv_device_alloc(ckv_context *context, int64_t bytes, void **memory);
CKV_API ckv_status ckv_device_free(ckv_context *context, void *memory);

// kind: ckv_copy_kind. In the stream's order; to and from the host it waits until the copy is made.
CKV_API ckv_status ckv_device_copy(ckv_context *context, void *to, const void *from, int64_t bytes,
                                   int32_t kind);

// ---- Settings -----------------------------------------------------------------------------------

// chunkkv with the paper's values: c = 10, w = 32, N_reuse = 1. budget is 0 and must be set.
CKV_API void ckv_default_params(ckv_params *params);

// floor(keep * kv_len + 1e-9), at least 1: the budget for a ratio kept in (0, 1]; -1 outside.
CKV_API int32_t ckv_budget_for(double keep, int32_t kv_len);

// Heads that token scores have: 1 (summed over all heads), num_kv_heads, or 0 (needs no scores).
CKV_API int32_t ckv_score_heads(const ckv_params *params, int32_t num_kv_heads);

// Heads that kept indices have: 1 or num_kv_heads.
CKV_API int32_t ckv_kept_heads(const ckv_params *params, int32_t num_kv_heads);

// Tokens that layer `layer` of `num_layers` keeps of kv_len: the budget, which the layers of
// pyramidkv share out: beside the window, the first layer keeps min(2m - m / 20, kv_len - window)
// tokens of the m = budget - window that layers keep on average, each further layer as many fewer,
// and all together num_layers * m. -1: no such layer or method.
CKV_API int32_t ckv_layer_budget(const ckv_params *params, int32_t kv_len, int32_t layer,
                                 int32_t num_layers);

// The most indices that a sequence of kv_len tokens can keep in any layer.
CKV_API int32_t ckv_kept_capacity(const ckv_params *params, int32_t kv_len);

// Bytes of workspace that any of the stages below, ckv_compress among them, needs for these layers:
// their sizes count, what they point to is not read, so that pointers may still be missing. 0 on the
// CPU, which has its own.
CKV_API ckv_status ckv_workspace_size(ckv_context *context, const ckv_params *params,
                                      const ckv_layer *layers, int32_t num_layers, int64_t *bytes);

// As above: those with which they are fastest. What lies in between is used as far as it goes.
CKV_API ckv_status ckv_workspace_best(ckv_context *context, const ckv_params *params,
                                      const ckv_layer *layers, int32_t num_layers, int64_t *bytes);

// ---- Stages -------------------------------------------------------------------------------------

// Attention of the window's queries to each token (paper, section 3.2):
//   A[h,i,t] = softmax_t(scale * q[h,i].k[h / group, t]), causal inside the window
// chunkkv: scores[b,0,t] = sum over h, i of A.
// snapkv, pyramidkv: scores[b,g,t] = mean over the group's heads and i of A, average-pooled over t.
// h2o:     scores[b,g,t] = sum over the group's heads and all rows i that see t of A: scores of
//          consecutive runs of queries add up to those of all.
CKV_API ckv_status ckv_score(ckv_context *context, const ckv_params *params,
                             const ckv_query_view *queries, const ckv_kv_view *keys,
                             ckv_scores *scores);

// chunk_scores: f32 [batch, max_chunks], max_chunks = ceil(max(kv_len - window, 0) / chunk_size);
// entries past a sequence's own chunks are 0. `count` floats are writable.
CKV_API ckv_status ckv_chunk_scores(ckv_context *context, const ckv_params *params,
                                    const ckv_scores *scores, float *chunk_scores, int64_t count);

// Queries and keys to chunk scores: what ckv_chunk_scores makes of ckv_score's token scores, for which
// the caller then needs no room. Methods with chunks only.
CKV_API ckv_status ckv_score_chunks(ckv_context *context, const ckv_params *params,
                                    const ckv_query_view *queries, const ckv_kv_view *keys,
                                    float *chunk_scores, int64_t count);

// Token scores to kept indices. params->budget is the layer's own. Tensor-parallel ranks sum `scores` between ckv_score and this call
// and all choose the same indices. Ties go to the lower index. Methods without scores (full,
// streaming_llm) read only the sizes of `scores`; data may be NULL.
CKV_API ckv_status ckv_select(ckv_context *context, const ckv_params *params,
                              const ckv_scores *scores, ckv_kept *kept);

// Moves row kept[i] to row i, for i in ascending order. dst NULL or equal to src: in place.
// Otherwise dst has the same dtype, head_dim, heads and batch, and is memory apart from src, or
// the same paged pool with other blocks: blocks that another sequence shares are read, not written.
// Sequence b has lens[b] tokens afterwards; in place, its blocks from entry
// ceil(lens[b] / block_size) on are free, and with dst all of src's are.
CKV_API ckv_status ckv_compact(ckv_context *context, const ckv_kv_view *src, const ckv_kv_view *dst,
                               const ckv_kept *kept);

// All stages for all layers, in place. Layers l with l % layer_reuse == 0 select; the others use
// the indices of the last one that did. Nothing is moved before every layer is selected. Layers keep
// ckv_layer_budget tokens, with pyramidkv each its own number: kept[l].lens tell.
// kept: [num_layers], filled in; layers may share nothing but must have equal batch and kv_len.
CKV_API ckv_status ckv_compress(ckv_context *context, const ckv_params *params,
                                const ckv_layer *layers, int32_t num_layers, ckv_kept *kept);

// ckv_compress without its last stage: kept is filled in and no row is moved, so that keys may have
// blocks that others share. values are not looked at and may be NULL. A call for some of a model's
// layers is one of a model that has these alone: layer_reuse and ckv_layer_budget count from the
// first.
CKV_API ckv_status ckv_select_layers(ckv_context *context, const ckv_params *params,
                                     const ckv_layer *layers, int32_t num_layers, ckv_kept *kept);

// ckv_compact of the keys and values of every layer, in place, by kept[l]: nothing is moved before
// all are checked. queries are not looked at; layers may be of different shapes.
CKV_API ckv_status ckv_compact_layers(ckv_context *context, const ckv_layer *layers,
                                      int32_t num_layers, const ckv_kept *kept);

#ifdef __cplusplus
}
#endif

#endif  // CHUNKKV_H
