// How fast this machine reads and copies memory, measured: the yardstick of compact.
#ifndef CKV_LIMITS_MEMORY_H
#define CKV_LIMITS_MEMORY_H

#include "compact/copy.h"
#include "limits.h"

enum { LIMITS_PIECE = 1 << 20 };

typedef struct limits_copy_job {
  char *to;
  const char *from;
  int64_t bytes, piece;
} limits_copy_job;

static inline int64_t limits_piece(const limits_copy_job *job, int64_t index) {
  const int64_t left = job->bytes - index * job->piece;
  return left < job->piece ? left : job->piece;
}

static inline void limits_keep(const uint64_t *sum) {
  volatile uint64_t kept = 0;  // or the compiler drops the reads
  for (int k = 0; k < 8; k++) kept += sum[k];
}

static inline void limits_add_line(uint64_t *sum, const char *line) {
  uint64_t words[8];
  memcpy(words, line, sizeof words);
  for (int k = 0; k < 8; k++) sum[k] += words[k];
}

static inline void limits_read_task(void *arg, int64_t index, int32_t thread) {
  (void)thread;
  const limits_copy_job *job = arg;
  const char *at = job->from + index * job->piece;
  uint64_t sum[8] = {0};
  for (int64_t i = 0; i + CKV_LINE <= limits_piece(job, index); i += CKV_LINE) {
    limits_add_line(sum, at + i);
  }
  limits_keep(sum);
}

// The next few pieces; `to` is NULL where they are only read.
static inline void limits_group(ckv_run_group *g, char *to, const char *from, int64_t bytes) {
  memset(g, 0, sizeof *g);
  for (int64_t i = 0; i < bytes && g->count < CKV_GROUP_LEAST; i += CKV_RUN_BYTES) {
    const int64_t left = bytes - i;
    ckv_group_add(
        g, (ckv_run){to ? to + i : NULL, from + i, left < CKV_RUN_BYTES ? left : CKV_RUN_BYTES});
  }
}

// With the next pages asked for, as compaction asks for its runs.
static inline void limits_read_asked_task(void *arg, int64_t index, int32_t thread) {
  (void)thread;
  const limits_copy_job *job = arg;
  const char *from = job->from + index * job->piece;
  uint64_t sum[8] = {0};
  ckv_run_group groups[2];
  limits_group(&groups[0], NULL, from, job->piece);
  for (int64_t at = groups[0].bytes, now = 0; groups[now].count > 0; now ^= 1) {
    limits_group(&groups[now ^ 1], NULL, from + at, job->piece - at);
    at += groups[now ^ 1].bytes;
    const char *end = groups[now].runs[0].from + groups[now].bytes;
    for (const char *line = groups[now].runs[0].from; line < end; line += CKV_LINE) {
      ckv_group_prefetch(&groups[now ^ 1]);
      limits_add_line(sum, line);
    }
  }
  limits_keep(sum);
}

// GB/s of reading `bytes` bytes (larger than the caches) on all threads of the pool.
static inline double limits_read_gbs(ckv_thread_pool *pool, const void *data, int64_t bytes) {
  limits_copy_job job = {.from = data, .bytes = bytes, .piece = LIMITS_PIECE};
  const int64_t pieces = bytes / LIMITS_PIECE;
  const double plain = limits_shortest(pool, 5, pieces, limits_read_task, &job);
  const double asked = limits_shortest(pool, 5, pieces, limits_read_asked_task, &job);
  return (double)(pieces * LIMITS_PIECE) / (plain < asked ? plain : asked) * 1e-9;
}

static inline void limits_libc_task(void *arg, int64_t index, int32_t thread) {
  (void)thread;
  const limits_copy_job *job = arg;
  const int64_t at = index * job->piece;
  memcpy(job->to + at, job->from + at, (size_t)limits_piece(job, index));
}

// Stores that bypass the caches, and the next pages asked for as compaction asks for its runs.
static inline void limits_stream_task(void *arg, int64_t index, int32_t thread) {
  (void)thread;
  const limits_copy_job *job = arg;
  char *to = job->to + index * job->piece;
  const char *from = job->from + index * job->piece;
  const int64_t bytes = limits_piece(job, index);
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

// GB/s of copying `bytes` bytes to other memory on all threads of the pool, bytes read and bytes
// written both counted: the better of the C library's memcpy and of stores that bypass the caches.
static inline double limits_copy_gbs(ckv_thread_pool *pool, char *to, const char *from,
                                     int64_t bytes) {
  limits_copy_job job = {to, from, bytes, LIMITS_PIECE};
  const int64_t pieces = (bytes + LIMITS_PIECE - 1) / LIMITS_PIECE;
  double best = limits_shortest(pool, 6, pieces, limits_stream_task, &job);
  // In as few pieces as there are threads: memcpy bypasses the caches only for long ones.
  const int64_t size = ckv_thread_pool_size(pool);
  job.piece = (bytes + size - 1) / size;
  const double libc = limits_shortest(pool, 6, size, limits_libc_task, &job);
  if (libc < best) best = libc;
  return 2.0 * (double)bytes / best * 1e-9;
}

#endif
