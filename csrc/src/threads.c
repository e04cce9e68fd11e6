#if !defined(_WIN32)
#  define _POSIX_C_SOURCE 200809L  // clock_gettime
#endif
#include "threads.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "alloc.h"
#include "cores.h"
#include "threads_os.h"

enum {
  MOST_THREADS = 1024,
  SPIN_NANOSECONDS = 100000,  // about two tiles: longer than the wait between two stages
};

typedef struct worker {
  ckv_thread_pool *pool;
  os_thread thread;
  int32_t index;
} worker;

// A job is open while its caller hands out indices. Workers join an open job under the lock and
// leave it when no index is left; the caller closes it and waits for those that joined. So a
// worker that wakes too late never holds anybody up.
struct ckv_thread_pool {
  os_mutex lock;
  os_cond wake;   // a job was opened, or stop
  os_cond left;   // the last worker left a closed job
  ckv_task task;  // the open job
  void *arg;
  int64_t count;
  bool open;
  bool stop;
  int64_t process;          // that the workers run in
  int32_t size;             // threads, the caller's included
  worker *workers;          // [size - 1]
  _Atomic uint64_t opened;  // jobs opened so far: what idle workers watch
  _Atomic int32_t inside;   // workers inside the job
  _Alignas(64) _Atomic int64_t next;
};

static void run_indices(ckv_thread_pool *pool, ckv_task task, void *arg, int64_t count,
                        int32_t thread) {
  for (;;) {
    const int64_t index = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
    if (index >= count) return;
    task(arg, index, thread);
  }
}

// Whether a spin loop that began at `start` may go on; looks at the clock now and then.
static bool keep_spinning(int32_t *turns, int64_t *start) {
  if (*turns % 64 == 0) {
    const int64_t now = os_nanoseconds();
    if (*turns == 0) *start = now;
    if (now - *start > SPIN_NANOSECONDS) return false;
  }
  ++*turns;
  os_relax();
  return true;
}

// Returns the number of the newest job; 0 to stop.
static uint64_t wait_for_job(ckv_thread_pool *pool, uint64_t seen) {
  int32_t turns = 0;
  int64_t start = 0;
  while (atomic_load_explicit(&pool->opened, memory_order_acquire) == seen) {
    if (!keep_spinning(&turns, &start)) break;
  }
  os_lock(&pool->lock);
  while (!pool->stop && atomic_load(&pool->opened) == seen) os_wait(&pool->wake, &pool->lock);
  const uint64_t job = pool->stop ? 0 : atomic_load(&pool->opened);
  os_unlock(&pool->lock);
  return job;
}

OS_THREAD_MAIN(worker_main, arg) {
  const worker *self = arg;
  ckv_thread_pool *pool = self->pool;
  uint64_t job = 1;
  while ((job = wait_for_job(pool, job)) != 0) {
    os_lock(&pool->lock);
    const bool join = pool->open;
    const ckv_task task = pool->task;
    void *task_arg = pool->arg;
    const int64_t count = pool->count;
    if (join) atomic_fetch_add(&pool->inside, 1);
    os_unlock(&pool->lock);
    if (!join) continue;
    run_indices(pool, task, task_arg, count, self->index);
    if (atomic_fetch_sub_explicit(&pool->inside, 1, memory_order_acq_rel) == 1) {
      os_lock(&pool->lock);  // orders this wake-up after the caller's check
      os_wake_all(&pool->left);
      os_unlock(&pool->lock);
    }
  }
  OS_THREAD_RETURN;
}

// A forked child has the memory of the pool but none of its threads, and its locks say that they are
// waited for: it works alone, and frees no more than the memory.
static bool has_workers(const ckv_thread_pool *pool) {
  return pool->size > 1 && pool->process == os_process();
}

static void stop_workers(ckv_thread_pool *pool, int32_t started) {
  os_lock(&pool->lock);
  pool->stop = true;
  atomic_fetch_add(&pool->opened, 1);
  os_wake_all(&pool->wake);
  os_unlock(&pool->lock);
  for (int32_t i = 0; i < started; i++) os_thread_join(pool->workers[i].thread);
}

static bool start_workers(ckv_thread_pool *pool) {
  for (int32_t i = 0; i < pool->size - 1; i++) {
    pool->workers[i] = (worker){.pool = pool, .index = i + 1};
    if (!os_thread_start(&pool->workers[i].thread, worker_main, &pool->workers[i])) {
      stop_workers(pool, i);
      return false;
    }
  }
  return true;
}

static bool init_locks(ckv_thread_pool *pool) {
  if (!os_mutex_init(&pool->lock)) return false;
  if (os_cond_init(&pool->wake)) {
    if (os_cond_init(&pool->left)) return true;
    os_cond_destroy(&pool->wake);
  }
  os_mutex_destroy(&pool->lock);
  return false;
}

static void destroy(ckv_thread_pool *pool) {
  if (pool->process == os_process()) {
    os_cond_destroy(&pool->left);
    os_cond_destroy(&pool->wake);
    os_mutex_destroy(&pool->lock);
  }
  ckv_free(pool->workers);
  ckv_free(pool);
}

ckv_thread_pool *ckv_thread_pool_create(int32_t num_threads) {
  if (num_threads < 0) return NULL;
  int32_t size = num_threads ? num_threads : ckv_usable_cores();
  if (size > MOST_THREADS) size = MOST_THREADS;
  ckv_thread_pool *pool = ckv_alloc(sizeof *pool);
  if (!pool) return NULL;
  *pool = (ckv_thread_pool){.process = os_process(), .size = size};
  atomic_init(&pool->opened, 1);
  pool->workers = ckv_alloc((size_t)size * sizeof *pool->workers);
  if (!pool->workers || !init_locks(pool)) {
    ckv_free(pool->workers);
    ckv_free(pool);
    return NULL;
  }
  if (!start_workers(pool)) {
    destroy(pool);
    return NULL;
  }
  return pool;
}

void ckv_thread_pool_free(ckv_thread_pool *pool) {
  if (!pool) return;
  if (has_workers(pool)) stop_workers(pool, pool->size - 1);
  destroy(pool);
}

int32_t ckv_thread_pool_size(const ckv_thread_pool *pool) { return pool->size; }

void ckv_parallel_for(ckv_thread_pool *pool, int64_t count, ckv_task task, void *arg) {
  if (count <= 1 || !has_workers(pool)) {
    for (int64_t i = 0; i < count; i++) task(arg, i, 0);
    return;
  }
  os_lock(&pool->lock);
  pool->task = task;
  pool->arg = arg;
  pool->count = count;
  pool->open = true;
  atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
  atomic_fetch_add_explicit(&pool->opened, 1, memory_order_release);
  os_wake_all(&pool->wake);
  os_unlock(&pool->lock);

  run_indices(pool, task, arg, count, 0);

  os_lock(&pool->lock);
  pool->open = false;
  os_unlock(&pool->lock);
  int32_t turns = 0;
  int64_t start = 0;
  do {
    if (atomic_load_explicit(&pool->inside, memory_order_acquire) == 0) return;
  } while (keep_spinning(&turns, &start));
  os_lock(&pool->lock);
  while (atomic_load(&pool->inside) != 0) os_wait(&pool->left, &pool->lock);
  os_unlock(&pool->lock);
}
