// threads: every index once at any size, jobs of all lengths, no thread left behind.
#include <stdatomic.h>

#include "cores.h"
#include "test.h"
#include "threads.h"

enum { MOST = 5000 };

typedef struct job {
  _Atomic int32_t runs[MOST];
  _Atomic int32_t bad_thread;
  int32_t size;
  int32_t work;
} job;

static void count_task(void *arg, int64_t index, int32_t thread) {
  job *j = arg;
  atomic_fetch_add(&j->runs[index], 1);
  if (thread < 0 || thread >= j->size) atomic_store(&j->bad_thread, 1);
  for (volatile int32_t i = 0; i < j->work; i++) {
  }
}

static void every_index_runs_once(void) {
  static job j;
  for (int32_t threads = 1; threads <= 9; threads++) {
    ckv_thread_pool *pool = ckv_thread_pool_create(threads);
    CHECK(pool && ckv_thread_pool_size(pool) == threads, "%d threads", threads);
    if (!pool) continue;
    for (int32_t round = 0; round < 200; round++) {
      const int32_t count = test_int(0, 4) ? test_int(0, 20) : test_int(0, MOST);
      for (int32_t i = 0; i < MOST; i++) atomic_store(&j.runs[i], 0);
      atomic_store(&j.bad_thread, 0);
      j.size = threads;
      j.work = count > 100 ? 0 : test_int(0, 2000);
      ckv_parallel_for(pool, count, count_task, &j);
      int32_t wrong = 0;
      for (int32_t i = 0; i < MOST; i++) wrong += atomic_load(&j.runs[i]) != (i < count);
      CHECK(wrong == 0, "%d threads, %d tasks: %d wrong", threads, count, wrong);
      CHECK(!atomic_load(&j.bad_thread), "thread numbers lie in [0, %d)", threads);
    }
    ckv_thread_pool_free(pool);
  }
}

static void pools_come_and_go(void) {
  for (int32_t i = 0; i < 300; i++) {
    ckv_thread_pool *pool = ckv_thread_pool_create(test_int(1, 5));
    CHECK(pool, "pool %d", i);
    ckv_thread_pool_free(pool);
  }
  ckv_thread_pool_free(NULL);
  CHECK(ckv_thread_pool_create(-1) == NULL, "no negative size");
}

static void pools_are_independent(void) {
  static job a, b;
  ckv_thread_pool *first = ckv_thread_pool_create(3), *second = ckv_thread_pool_create(2);
  CHECK(first && second, "two pools");
  a.size = 3;
  b.size = 2;
  for (int32_t i = 0; i < 100 && first && second; i++) {
    ckv_parallel_for(first, 7, count_task, &a);
    ckv_parallel_for(second, 5, count_task, &b);
  }
  CHECK(atomic_load(&a.runs[6]) == 100 && atomic_load(&b.runs[4]) == 100, "all jobs ran");
  ckv_thread_pool_free(first);
  ckv_thread_pool_free(second);
}

// A worker that wakes up late must not take indices of the next job for the last one.
static void jobs_follow_each_other_at_once(void) {
  enum { JOBS = 30000, TASKS = 3 };
  static job jobs[2];
  ckv_thread_pool *pool = ckv_thread_pool_create(6);
  CHECK(pool, "a pool");
  if (!pool) return;
  jobs[0].size = jobs[1].size = 6;
  for (int32_t i = 0; i < JOBS; i++) ckv_parallel_for(pool, TASKS, count_task, &jobs[i % 2]);
  for (int32_t i = 0; i < 2 * TASKS; i++) {
    const int32_t runs = atomic_load(&jobs[i / TASKS].runs[i % TASKS]);
    CHECK(runs == JOBS / 2, "job %d, task %d ran %d times", i / TASKS, i % TASKS, runs);
  }
  ckv_thread_pool_free(pool);
}

static void the_default_is_the_usable_cores(void) {
  ckv_thread_pool *pool = ckv_thread_pool_create(0);
  CHECK(pool && ckv_thread_pool_size(pool) == ckv_usable_cores(), "%d cores", ckv_usable_cores());
  CHECK(ckv_usable_cores() >= 1, "at least one");
  ckv_thread_pool_free(pool);
}

int main(void) {
  test_begin("threads");
  every_index_runs_once();
  pools_come_and_go();
  pools_are_independent();
  jobs_follow_each_other_at_once();
  the_default_is_the_usable_cores();
  return test_end();
}
