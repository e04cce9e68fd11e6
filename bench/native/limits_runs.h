// The kept rows of a cache as a list of runs, and the plainest loops that copy such a list: how fast
// this machine moves just these bytes, with nothing to find out meanwhile.
#ifndef CKV_LIMITS_RUNS_H
#define CKV_LIMITS_RUNS_H

#include <stdlib.h>

#include "dtype.h"
#include "kv_view.h"
#include "limits_memory.h"

enum { LIMITS_RUNS_AHEAD = 8, LIMITS_LINES_AHEAD = 128, LIMITS_LOOPS = 3 };

typedef struct limits_runs {
  ckv_run *runs;
  int64_t count, parts;
  int loop;
} limits_runs;

static inline void limits_runs_add(limits_runs *list, char *to, const char *from, int64_t bytes) {
  ckv_run *last = list->runs + list->count - 1;
  if (to == from) return;
  if (list->count > 0 && last->to + last->bytes == to && last->from + last->bytes == from &&
      last->bytes + bytes <= CKV_RUN_BYTES) {
    last->bytes += bytes;
    return;
  }
  list->runs[list->count++] = (ckv_run){to, from, bytes};
}

// Appends the rows that compaction of the view in place moves, in its order.
static inline void limits_runs_of(const ckv_kv_view *view, const ckv_kept *kept,
                                  limits_runs *list) {
  const int64_t bytes = ckv_row_bytes(view->dtype, view->head_dim);
  const int32_t heads = view->num_kv_heads;
  const bool together = kept->num_heads == 1 && view->stride_head == bytes;
  for (int32_t b = 0; b < view->batch; b++) {
    const int32_t len = kept->lens[b];
    for (int64_t i = 0; i < (int64_t)len * heads; i++) {
      const int32_t head = (int32_t)(together ? i % heads : i / len);
      const int32_t row = (int32_t)(together ? i / heads : i % len);
      const int64_t set = (int64_t)b * kept->num_heads + (kept->num_heads > 1 ? head : 0);
      const int32_t index = kept->indices[set * kept->capacity + row];
      limits_runs_add(list, ckv_row(view, b, head, row), ckv_row(view, b, head, index), bytes);
    }
  }
}

// Line after line of all runs, asked for LIMITS_LINES_AHEAD lines before, and of the runs after
// that the first line, for the address of its page.
static inline void limits_in_line(const ckv_run *runs, int64_t count) {
  int64_t next = 0, offset = 0, ahead = 0;
  for (int64_t i = 0; i < count; i++) {
    const ckv_run r = runs[i];
    if (i + LIMITS_RUNS_AHEAD < count) {
      __builtin_prefetch(runs[i + LIMITS_RUNS_AHEAD].from, 0, 2);
    }
    int64_t at = 0;
    for (; at + CKV_LINE <= r.bytes; at += CKV_LINE, ahead--) {
      for (; ahead < LIMITS_LINES_AHEAD && next < count; ahead++) {
        __builtin_prefetch(runs[next].from + offset, 0, 2);
        offset += CKV_LINE;
        if (offset < runs[next].bytes) continue;
        offset = 0;
        next++;
      }
#if CKV_X86_64
      if ((uintptr_t)r.to % CKV_LINE == 0) {
        ckv_stream_line(r.to + at, r.from + at);
        continue;
      }
#endif
      memmove(r.to + at, r.from + at, CKV_LINE);
    }
    memmove(r.to + at, r.from + at, (size_t)(r.bytes - at));
  }
}

// A few runs side by side, each group asked for while the one before it is copied.
static inline void limits_side_by_side(const ckv_run *runs, int64_t count) {
  ckv_run_group groups[2];
  memset(&groups, 0, sizeof groups);
  for (int64_t i = 0, now = 0; i < count || groups[now ^ 1].count > 0; now ^= 1) {
    ckv_run_group *copied = &groups[now ^ 1], *ahead = &groups[now];
    memset(ahead, 0, sizeof *ahead);
    while (i < count && !ckv_group_is_full(ahead)) ckv_group_add(ahead, runs[i++]);
    for (int32_t k = 0; k < copied->count; k++) ckv_copy_run(copied->runs[k], true, ahead);
  }
}

static inline void limits_runs_task(void *arg, int64_t index, int32_t thread) {
  (void)thread;
  const limits_runs *list = arg;
  const int64_t begin = list->count * index / list->parts;
  const ckv_run *runs = list->runs + begin;
  const int64_t count = list->count * (index + 1) / list->parts - begin;
  if (list->loop == 0) limits_in_line(runs, count);
  if (list->loop == 1) limits_side_by_side(runs, count);
  for (int64_t i = 0; list->loop == 2 && i < count; i++) {
    memmove(runs[i].to, runs[i].from, (size_t)runs[i].bytes);
  }
  ckv_copy_fence();
}

// Seconds of the fastest of the loops on one pair of the `count` views (keys and values of layers in
// turn), each loop repeated for about `seconds`; -1 if memory is out. What the caches hold
// afterwards is not what compaction leaves: threads do not wait for each other's rows.
static inline double limits_runs_seconds(ckv_thread_pool *pool, const ckv_kv_view *views,
                                         int32_t count, const ckv_kept *kept, double seconds) {
  int64_t rows = 0;
  for (int32_t b = 0; b < views->batch; b++) rows += (int64_t)kept->lens[b] * views->num_kv_heads;
  limits_runs list = {.runs = malloc(sizeof(ckv_run) * (size_t)(2 * rows + 1)),
                      .parts = ckv_thread_pool_size(pool)};
  if (!list.runs) return -1;
  double best = 1e30;
  int32_t layer = 0;
  for (list.loop = 0; list.loop < LIMITS_LOOPS; list.loop++) {
    const double end = limits_now() + seconds;
    for (int round = 0; round < 3 || limits_now() < end; round++, layer++) {
      list.count = 0;
      for (int32_t i = 0; i < 2; i++) {
        limits_runs_of(&views[(2 * layer + i) % count], kept, &list);
      }
      const double took = limits_shortest(pool, 1, list.parts, limits_runs_task, &list);
      if (took < best) best = took;
    }
  }
  free(list.runs);
  return best;
}

#endif
