#include "compact.h"

#include "../kv_view.h"
#include "copy.h"

enum {
  RUNS_AHEAD = 32,           // runs that are known before they are copied
  BYTES_AHEAD = 4096,        // and asked for: what memory delivers while it takes to answer
  STREAM_BYTES = 128 << 10,  // below this the moved rows may well be in a core's own cache
  PIECE_BYTES = 64 << 10,    // least work of a task
  TASKS_PER_THREAD = 8,
};

typedef struct {
  const ckv_kv_view *src, *dst;
  const ckv_kept *kept;
  int32_t heads;        // rows side by side that move as one
  int64_t row_bytes;    // of those together
  int32_t head_groups;  // num_kv_heads / heads
  int32_t parts;        // tasks that share one group: slices or pieces
  bool in_place, stream;
} job;

// Rows [i, end) of a group still to be moved; of each the bytes [offset, offset + bytes).
typedef struct {
  const job *job;
  const int32_t *indices;
  int32_t b, head, i, end;
  int64_t offset, bytes;
} cursor;

typedef struct {
  char *to;
  const char *from;
  int64_t bytes;
} run;

// Heads lie side by side in llama.cpp's cells and vLLM's NHD pages: one index set moves them all.
static bool heads_are_adjacent(const ckv_kv_view *view, int64_t row_bytes) {
  return view->num_kv_heads == 1 || view->stride_head == row_bytes;
}

// How many tokens from t on lie stride_token apart for sure: the rest of t's block.
static int32_t tokens_in_block(const ckv_kv_view *view, int32_t t) {
  return view->block_size == 0 ? INT32_MAX : view->block_size - t % view->block_size;
}

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

// The next rows that follow each other in both places, found by their indices inside blocks and by
// their addresses across them (a cell list whose neighbours are neighbours).
static bool next_run(cursor *c, run *r) {
  if (c->i >= c->end) return false;
  const ckv_kv_view *src = c->job->src, *dst = c->job->dst;
  const bool packed = src->stride_token == c->bytes && dst->stride_token == c->bytes;
  *r = (run){0};
  do {
    const int32_t index = c->indices[c->i];
    char *to = ckv_row(dst, c->b, c->head, c->i) + c->offset;
    const char *from = ckv_row(src, c->b, c->head, index) + c->offset;
    if (r->bytes && (to != r->to + r->bytes || from != r->from + r->bytes)) break;
    if (!r->bytes) *r = (run){to, from, 0};
    int32_t rows = 1;
    if (packed) {
      const int32_t most = least(c->end - c->i, least(tokens_in_block(src, index),
                                                      tokens_in_block(dst, c->i)));
      while (rows < most && c->indices[c->i + rows] == index + rows) rows++;
    }
    r->bytes += rows * c->bytes;
    c->i += rows;
  } while (c->i < c->end);
  return true;
}

// Runs in order, each asked for while earlier ones are copied.
static void move_rows(cursor *c) {
  run ring[RUNS_AHEAD];
  uint32_t first = 0, last = 0;
  int64_t ahead = 0;
  for (;;) {
    while (ahead < BYTES_AHEAD && last - first < RUNS_AHEAD) {
      run *r = &ring[last % RUNS_AHEAD];
      if (!next_run(c, r)) break;
      last++;
      ahead += r->bytes;
      // Of a long run the start: once it is being read, the hardware goes on by itself.
      ckv_prefetch_run(r->from, (size_t)(r->bytes < BYTES_AHEAD ? r->bytes : BYTES_AHEAD));
    }
    if (first == last) break;
    const run *r = &ring[first++ % RUNS_AHEAD];
    ahead -= r->bytes;
    if (r->to != r->from) ckv_copy_run(r->to, r->from, (size_t)r->bytes, c->job->stream);
  }
  ckv_copy_fence();
}

static cursor group_rows(const job *j, int64_t group) {
  cursor c = {.job = j, .bytes = j->row_bytes};
  c.b = (int32_t)(group / j->head_groups);
  c.head = (int32_t)(group % j->head_groups) * j->heads;
  const int64_t set = (int64_t)c.b * j->kept->num_heads + (j->kept->num_heads > 1 ? c.head : 0);
  c.indices = j->kept->indices + set * j->kept->capacity;
  c.end = j->kept->lens[c.b];
  return c;
}

// In place, rows that come from where rows go must move in order; they are the first, as indices
// rise. The others come from outside and move in any order.
static int32_t rows_in_order(const cursor *c) {
  if (!c->job->in_place) return 0;
  int32_t low = 0, high = c->end;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    if (c->indices[middle] < c->end) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

static void move_group(void *arg, int64_t index, int32_t thread) {
  (void)thread;
  cursor c = group_rows(arg, index);
  move_rows(&c);
}

// The rows in order: threads share bytes of each row.
static void move_slice(void *arg, int64_t index, int32_t thread) {
  (void)thread;
  const job *j = arg;
  cursor c = group_rows(j, index / j->parts);
  const int64_t slice = index % j->parts;
  c.end = rows_in_order(&c);
  c.offset = j->row_bytes * slice / j->parts;
  c.bytes = j->row_bytes * (slice + 1) / j->parts - c.offset;
  move_rows(&c);
}

// The rows after them: threads share rows.
static void move_piece(void *arg, int64_t index, int32_t thread) {
  (void)thread;
  const job *j = arg;
  cursor c = group_rows(j, index / j->parts);
  const int64_t piece = index % j->parts;
  const int64_t begin = rows_in_order(&c), rows = c.end - begin;
  c.i = (int32_t)(begin + rows * piece / j->parts);
  c.end = (int32_t)(begin + rows * (piece + 1) / j->parts);
  move_rows(&c);
}

ckv_status ckv_compact_rows(ckv_context *ctx, const ckv_kv_view *src, const ckv_kv_view *dst,
                            const ckv_kept *kept) {
  const int64_t row_bytes = ckv_row_bytes(src->dtype, src->head_dim);
  const bool together = kept->num_heads == 1 && heads_are_adjacent(src, row_bytes) &&
                        heads_are_adjacent(dst, row_bytes);
  job j = {.src = src, .dst = dst, .kept = kept, .in_place = src == dst};
  j.heads = together ? src->num_kv_heads : 1;
  j.row_bytes = row_bytes * j.heads;
  j.head_groups = src->num_kv_heads / j.heads;
  int64_t rows = 0;
  for (int32_t b = 0; b < src->batch; b++) rows += (int64_t)kept->lens[b] * j.head_groups;
  const int64_t bytes = rows * j.row_bytes, groups = (int64_t)src->batch * j.head_groups;
  j.stream = bytes >= STREAM_BYTES;

  const int64_t threads = ckv_thread_pool_size(ctx->pool);
  const bool even = groups % threads == 0 || groups >= TASKS_PER_THREAD * threads;
  if (even || bytes < 2 * PIECE_BYTES) {
    ckv_parallel_for(ctx->pool, groups, move_group, &j);
    return CKV_OK;
  }
  if (j.in_place) {
    j.parts = 1;
    while (groups * j.parts < threads && j.row_bytes / (2 * j.parts) >= 256) j.parts *= 2;
    ckv_parallel_for(ctx->pool, groups * j.parts, move_slice, &j);
  }
  int64_t parts = (TASKS_PER_THREAD * threads + groups - 1) / groups;
  if (parts > bytes / groups / PIECE_BYTES + 1) parts = bytes / groups / PIECE_BYTES + 1;
  j.parts = (int32_t)parts;
  ckv_parallel_for(ctx->pool, groups * j.parts, move_piece, &j);
  return CKV_OK;
}
