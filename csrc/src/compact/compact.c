#include "compact.h"

#include <string.h>

#include "../kv_view.h"

typedef struct {
  const ckv_kv_view *src, *dst;
  const ckv_kept *kept;
  int32_t heads;        // rows side by side that move as one
  int64_t row_bytes;    // of those together
  int32_t slices;       // threads that share one sequence's rows, each its own bytes of every row
  int32_t head_groups;  // num_kv_heads / heads
} job;

// Heads lie side by side in llama.cpp's cells and vLLM's NHD pages: one index set moves them all.
static bool heads_are_adjacent(const ckv_kv_view *view, int64_t row_bytes) {
  return view->num_kv_heads == 1 || view->stride_head == row_bytes;
}

static void copy(char *to, const char *from, size_t bytes) {
  if (to != from) memmove(to, from, bytes);
}

// Rows that follow each other in both places are one copy.
static void move_rows(const job *j, int32_t b, int32_t head, const int32_t *indices, int32_t count,
                      int64_t offset, size_t bytes) {
  const bool packed = bytes == (size_t)j->row_bytes && j->src->block_size == 0 &&
                      j->dst->block_size == 0 && j->src->stride_token == j->row_bytes &&
                      j->dst->stride_token == j->row_bytes;
  for (int32_t i = 0; i < count;) {
    int32_t run = 1;
    while (packed && i + run < count && indices[i + run] == indices[i] + run) run++;
    copy(ckv_row(j->dst, b, head, i) + offset, ckv_row(j->src, b, head, indices[i]) + offset,
         bytes * (size_t)run);
    i += run;
  }
}

static void move_slice(void *arg, int64_t index, int32_t thread) {
  (void)thread;
  const job *j = arg;
  const int32_t slice = (int32_t)(index % j->slices);
  const int64_t group = index / j->slices;
  const int32_t b = (int32_t)(group / j->head_groups);
  const int32_t head = (int32_t)(group % j->head_groups) * j->heads;
  const int32_t *indices =
      j->kept->indices +
      ((int64_t)b * j->kept->num_heads + (j->kept->num_heads > 1 ? head : 0)) * j->kept->capacity;
  const int64_t begin = j->row_bytes * slice / j->slices;
  const int64_t end = j->row_bytes * (slice + 1) / j->slices;
  move_rows(j, b, head, indices, j->kept->lens[b], begin, (size_t)(end - begin));
}

ckv_status ckv_compact_rows(ckv_context *ctx, const ckv_kv_view *src, const ckv_kv_view *dst,
                            const ckv_kept *kept) {
  const int64_t row_bytes = ckv_row_bytes(src->dtype, src->head_dim);
  const bool together = kept->num_heads == 1 && heads_are_adjacent(src, row_bytes) &&
                        heads_are_adjacent(dst, row_bytes);
  job j = {.src = src, .dst = dst, .kept = kept, .slices = 1};
  j.heads = together ? src->num_kv_heads : 1;
  j.row_bytes = row_bytes * j.heads;
  j.head_groups = src->num_kv_heads / j.heads;
  // In place, rows of a sequence must move in order: threads share bytes of each row instead.
  const int32_t threads = ckv_thread_pool_size(ctx->pool);
  const int64_t groups = (int64_t)src->batch * j.head_groups;
  while (groups * j.slices < threads && j.row_bytes / (2 * j.slices) >= 256) j.slices *= 2;
  ckv_parallel_for(ctx->pool, groups * j.slices, move_slice, &j);
  return CKV_OK;
}
