// The little that a C test needs: checks that count, a seeded generator, one closing line.
#ifndef CKV_TEST_H
#define CKV_TEST_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int test_passed, test_failed;

// One check inside a test; prints where it failed and goes on.
#define CHECK(condition, ...)                                         \
  do {                                                                \
    if (condition) {                                                  \
      test_passed++;                                                  \
    } else {                                                          \
      test_failed++;                                                  \
      fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      fprintf(stderr, __VA_ARGS__);                                   \
      fputc('\n', stderr);                                            \
    }                                                                 \
  } while (0)

static uint64_t test_state;

// Fresh every run; CKV_TEST_SEED repeats one. The seed is printed so that a failure can be.
static inline void test_begin(const char *name) {
  const char *seed = getenv("CKV_TEST_SEED");
  struct timespec now;
  timespec_get(&now, TIME_UTC);
  test_state =
      seed ? strtoull(seed, NULL, 10) : (uint64_t)now.tv_sec * 1000003u + (uint64_t)now.tv_nsec;
  printf("%s: CKV_TEST_SEED=%llu\n", name, (unsigned long long)test_state);
}

static inline int test_end(void) {
  printf("%d passed, %d failed\n", test_passed, test_failed);
  return test_failed == 0 && test_passed > 0 ? 0 : 1;
}

// splitmix64
static inline uint64_t test_random(void) {
  uint64_t z = (test_state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static inline int32_t test_int(int32_t low, int32_t high) {
  return low + (int32_t)(test_random() % (uint64_t)(high - low + 1));
}

static inline float test_float(void) { return (float)((double)(test_random() >> 11) * 0x1p-53); }

#endif
