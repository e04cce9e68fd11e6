// One run of bytes moved down: the inner loop of compaction.
#ifndef CKV_COMPACT_COPY_H
#define CKV_COMPACT_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../arch.h"

#if CKV_X86_64
#  include <immintrin.h>
#endif

#define CKV_LINE 64

// Asks for a run that is copied soon. Runs lie anywhere, so the hardware cannot foresee them.
static inline void ckv_prefetch_run(const char *from, size_t bytes) {
  const char *end = from + bytes;
  for (const char *at = from; at < end; at += CKV_LINE) __builtin_prefetch(at, 0, 0);
  __builtin_prefetch(end - 1, 0, 0);
}

// Copies a run; where the two overlap, `to` lies below `from`. With `stream` whole cache lines go
// to memory without being read first: a third less traffic where they are not in a cache. Such
// stores are ordered by ckv_copy_fence alone.
static inline void ckv_copy_run(char *to, const char *from, size_t bytes, bool stream) {
#if CKV_X86_64
  const size_t head = -(uintptr_t)to % CKV_LINE;
  if (stream && bytes >= head + CKV_LINE) {
    memmove(to, from, head);
    to += head;
    from += head;
    bytes -= head;
    for (; bytes >= CKV_LINE; bytes -= CKV_LINE, to += CKV_LINE, from += CKV_LINE) {
      // All of a line is read before any of it is written: runs may overlap by less than a line.
      const __m128i a = _mm_loadu_si128((const __m128i *)(const void *)from);
      const __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(from + 16));
      const __m128i c = _mm_loadu_si128((const __m128i *)(const void *)(from + 32));
      const __m128i d = _mm_loadu_si128((const __m128i *)(const void *)(from + 48));
      _mm_stream_si128((__m128i *)(void *)to, a);
      _mm_stream_si128((__m128i *)(void *)(to + 16), b);
      _mm_stream_si128((__m128i *)(void *)(to + 32), c);
      _mm_stream_si128((__m128i *)(void *)(to + 48), d);
    }
  }
#else
  (void)stream;
#endif
  memmove(to, from, bytes);
}

// Makes streamed lines visible to other threads; after the last run of a task.
static inline void ckv_copy_fence(void) {
#if CKV_X86_64
  _mm_sfence();
#endif
}

#endif
