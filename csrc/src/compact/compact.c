#include "compact.h"

#include "../kv_view.h"
#include "copy.h"

enum {
  STREAM_BYTES = 128 << 10,  // below this the moved rows may well be in a core's own cache
  TASK_BYTES = 64 << 10,     // least work of a task
  MOST_ROUNDS = 8,           // tasks per thread
};

typedef struct {
  const ckv_kv_view *src, *dst;
  const ckv_kept *kept;
  int32_t heads;        // rows side by side that move as one
  int64_t row_bytes;    // of those together
  int32_t head_groups;  // num_kv_heads / heads
  int64_t groups;       // batch * head_groups: each has rows of its own
  int64_t tasks;        // that share the groups, or
  int32_t parts;        // that share each group
  bool in_place, stream;
} job;

// What one task moves: rows [i, end) of a group, of each the bytes [offset, offset + bytes), and
// all rows of the groups after it up to last_group.
typedef struct {
  const job *job;
  const int32_t *indices;
  int64_t group, last_group, offset, bytes;
  int32_t b, head, i, end;
} cursor;

// Heads lie side by side in llama.cpp's cells and vLLM's NHD pages: one index set moves them all.
static bool heads_are_adjacent(const ckv_kv_view *view, int64_t row_bytes) {
  return view->num_kv_heads == 1 || view->stride_head == row_bytes;
}

static void enter_group(cursor *c, int64_t group) {
  const job *j = c->job;
  c->group = group;
  c->b = (int32_t)(group / j->head_groups);
  c->head = (int32_t)(group % j->head_groups) * j->heads;
  const int64_t set = (int64_t)c->b * j->kept->num_heads + (j->kept->num_heads > 1 ? c->head : 0);
  c->indices = j->kept->indices + set * j->kept->capacity;
  c->i = 0;
  c->end = j->kept->lens[c->b];
}

static cursor at_groups(const job *j, int64_t first, int64_t last) {
  cursor c = {.job = j, .last_group = last, .bytes = j->row_bytes};
  enter_group(&c, first);
  return c;
}

// How many tokens from t on lie stride_token apart for sure: the rest of t's block.
static int32_t tokens_in_block(const ckv_kv_view *view, int32_t t) {
  return view->block_size == 0 ? INT32_MAX : view->block_size - t % view->block_size;
}

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

// The next rows that follow each other in both places, found by their indices inside blocks and by
// their addresses across them (a cell list whose neighbours are neighbours).
static bool next_run(cursor *c, ckv_run *r) {
  while (c->i >= c->end) {
    if (c->group + 1 >= c->last_group) return false;
    enter_group(c, c->group + 1);
  }
  const ckv_kv_view *src = c->job->src, *dst = c->job->dst;
  const bool packed = src->stride_token == c->bytes && dst->stride_token == c->bytes;
  *r = (ckv_run){0};
  do {
    const int32_t index = c->indices[c->i];
    char *to = ckv_row(dst, c->b, c->head, c->i) + c->offset;
    const char *from = ckv_row(src, c->b, c->head, index) + c->offset;
    if (r->bytes && (to != r->to + r->bytes || from != r->from + r->bytes)) break;
    if (!r->bytes) *r = (ckv_run){to, from, 0};
    int32_t rows = 1;
    if (packed) {
      const int32_t most =
          least(c->end - c->i, least(tokens_in_block(src, index), tokens_in_block(dst, c->i)));
      while (rows < most && c->indices[c->i + rows] == index + rows) rows++;
    }
    r->bytes += rows * c->bytes;
    c->i += rows;
  } while (c->i < c->end);
  return true;
}

// The next runs, long ones in pieces of which *rest is what is left over.
static void fill_group(cursor *c, ckv_run *rest, ckv_run_group *g) {
  g->count = g->next = 0;
  g->bytes = g->offset = g->longest = 0;
  while (!ckv_group_is_full(g)) {
    if (rest->bytes == 0 && !next_run(c, rest)) return;
    ckv_run piece = *rest;
    if (piece.bytes > CKV_RUN_BYTES) piece.bytes = CKV_RUN_BYTES;
    rest->to += piece.bytes;
    rest->from += piece.bytes;
    rest->bytes -= piece.bytes;
    if (piece.to != piece.from) ckv_group_add(g, piece);
  }
}

// Runs in order; each group is asked for while the one before it is copied.
static void move_rows(cursor *c) {
  ckv_run_group groups[2];
  ckv_run rest = {0};
  fill_group(c, &rest, &groups[0]);
  for (uint32_t now = 0; groups[now].count > 0; now ^= 1) {
    ckv_run_group *ahead = &groups[now ^ 1];
    fill_group(c, &rest, ahead);
    for (int32_t i = 0; i < groups[now].count; i++) {
      ckv_copy_run(groups[now].runs[i], c->job->stream, ahead);
    }
  }
  ckv_copy_fence();
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

static void move_groups(void *arg, int64_t index, int32_t thread) {
  (void)thread;
  const job *j = arg;
  cursor c = at_groups(j, j->groups * index / j->tasks, j->groups * (index + 1) / j->tasks);
  move_rows(&c);
}

// The rows in order: threads share bytes of each row.
static void move_slice(void *arg, int64_t index, int32_t thread) {
  (void)thread;
  const job *j = arg;
  const int64_t group = index / j->parts;
  cursor c = at_groups(j, group, group + 1);
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
  const int64_t group = index / j->parts;
  cursor c = at_groups(j, group, group + 1);
  const int64_t piece = index % j->parts;
  const int64_t begin = rows_in_order(&c), rows = c.end - begin;
  c.i = (int32_t)(begin + rows * piece / j->parts);
  c.end = (int32_t)(begin + rows * (piece + 1) / j->parts);
  move_rows(&c);
}

// As many tasks as keep every thread busy to the end, none too small to be worth it.
static int64_t tasks_for(int64_t bytes, int64_t threads) {
  const int64_t rounds = bytes / (threads * TASK_BYTES);
  return threads * (rounds < 1 ? 1 : rounds > MOST_ROUNDS ? MOST_ROUNDS : rounds);
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
  j.groups = (int64_t)src->batch * j.head_groups;
  int64_t bytes = 0;
  for (int32_t b = 0; b < src->batch; b++) bytes += kept->lens[b] * j.head_groups * j.row_bytes;
  if (bytes == 0) return CKV_OK;
  j.stream = bytes >= STREAM_BYTES;

  const int64_t threads = ckv_thread_pool_size(ctx->pool);
  j.tasks = threads == 1 || bytes < 2 * TASK_BYTES ? 1 : tasks_for(bytes, threads);
  if (j.groups % threads == 0 || j.groups >= MOST_ROUNDS * threads || j.tasks == 1) {
    while (j.tasks > threads && j.groups % j.tasks != 0 && j.groups < MOST_ROUNDS * threads) {
      j.tasks -= threads;
    }
    ckv_parallel_for(ctx->pool, j.tasks, move_groups, &j);
    return CKV_OK;
  }
  if (j.in_place) {
    j.parts = 1;
    while (j.groups * j.parts < threads && j.row_bytes / (2 * j.parts) >= 256) j.parts *= 2;
    ckv_parallel_for(ctx->pool, j.groups * j.parts, move_slice, &j);
  }
  j.parts = (int32_t)((j.tasks + j.groups - 1) / j.groups);
  ckv_parallel_for(ctx->pool, j.groups * j.parts, move_piece, &j);
  return CKV_OK;
}
