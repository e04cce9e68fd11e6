// The fastest copy of neighbouring bytes that we know: what compaction is held against.
#ifndef CKV_LIMITS_COPY_H
#define CKV_LIMITS_COPY_H

#include "compact/copy.h"

// The next few pieces; `to` is NULL where they are only read.
static inline void limits_group(ckv_run_group *g, char *to, const char *from, int64_t bytes) {
  memset(g, 0, sizeof *g);
  for (int64_t i = 0; i < bytes && g->count < CKV_GROUP_LEAST; i += CKV_RUN_BYTES) {
    const int64_t left = bytes - i;
    ckv_group_add(
        g, (ckv_run){to ? to + i : NULL, from + i, left < CKV_RUN_BYTES ? left : CKV_RUN_BYTES});
  }
}

// Stores that bypass the caches, and the next pages asked for as compaction asks for its runs.
static inline void limits_copy(char *to, const char *from, int64_t bytes) {
  ckv_run_group groups[2];
  limits_group(&groups[0], to, from, bytes);
  int64_t at = 0;
  for (uint32_t now = 0; groups[now].count > 0; now ^= 1) {
    at += groups[now].bytes;
    limits_group(&groups[now ^ 1], to + at, from + at, bytes - at);
    for (int32_t i = 0; i < groups[now].count; i++) {
      ckv_copy_run(groups[now].runs[i], true, &groups[now ^ 1]);
    }
  }
  ckv_copy_fence();
}

#endif
