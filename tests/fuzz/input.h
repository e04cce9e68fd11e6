// The fuzzer's bytes as numbers: what is left over reads as zeros.
#ifndef CKV_FUZZ_INPUT_H
#define CKV_FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// libFuzzer calls it with every input.
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// A promise that does not hold ends the run, as a sanitizer's find does.
#define PROMISE(condition, ...)                                       \
  do {                                                                \
    if (!(condition)) {                                               \
      fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      fprintf(stderr, __VA_ARGS__);                                   \
      fputc('\n', stderr);                                            \
      abort();                                                        \
    }                                                                 \
  } while (0)

typedef struct input {
  const uint8_t *data;
  size_t size;
} input;

static inline void take(input *in, void *to, size_t bytes) {
  const size_t n = bytes < in->size ? bytes : in->size;
  memset(to, 0, bytes);
  if (n) memcpy(to, in->data, n);
  in->data += n;
  in->size -= n;
}

static inline uint8_t take_u8(input *in) {
  uint8_t value;
  take(in, &value, sizeof value);
  return value;
}

static inline int32_t take_i32(input *in) {
  int32_t value;
  take(in, &value, sizeof value);
  return value;
}

static inline int64_t take_i64(input *in) {
  int64_t value;
  take(in, &value, sizeof value);
  return value;
}

static inline int32_t take_in(input *in, int32_t low, int32_t high) {
  return low + take_u8(in) % (high - low + 1);
}

// Numbers at which checks go wrong, as often as any.
static inline int64_t take_odd_number(input *in) {
  static const int64_t ODD[] = {0,          1,
                                -1,         2,
                                INT32_MAX,  INT32_MIN,
                                INT64_MAX,  INT64_MIN,
                                1 << 30,    INT64_MAX / 2,
                                UINT32_MAX, 65535,
                                65536,      (1ll << 32) + 1};
  const uint8_t kind = take_u8(in);
  const int32_t count = (int32_t)(sizeof ODD / sizeof *ODD);
  if (kind < 128) return ODD[kind % count];
  return kind < 192 ? (int64_t)(int8_t)take_u8(in) : take_i64(in);
}

// Memory of exactly so many bytes: the address sanitizer sees whatever reads past it. Filled with a
// pattern of the input.
static inline void *exactly(size_t bytes, uint32_t pattern) {
  uint8_t *memory = malloc(bytes ? bytes : 1);
  PROMISE(memory, "%zu bytes", bytes);
  for (size_t i = 0; i < bytes; i++) {
    pattern = pattern * 1664525u + 1013904223u;
    memory[i] = (uint8_t)(pattern >> 24);
  }
  return memory;
}

#endif
