// A small pool of threads that runs one task array at a time.
#ifndef CKV_THREADS_H
#define CKV_THREADS_H

#include <stdint.h>

typedef struct ckv_thread_pool ckv_thread_pool;

// num_threads counts the calling thread; 0: one per core that this process may run on (affinity
// mask, cgroup quota). NULL when memory or threads are out, or num_threads is negative.
ckv_thread_pool *ckv_thread_pool_create(int32_t num_threads);
void ckv_thread_pool_free(ckv_thread_pool *pool);  // NULL is fine
int32_t ckv_thread_pool_size(const ckv_thread_pool *pool);

// Runs task(arg, index, thread) for every index in [0, count), each once, in any order, and
// returns when all are done. thread is in [0, size). Tasks write to disjoint memory.
// One caller at a time; a task must not call it on its own pool.
// Idle threads spin for 100 microseconds, then sleep: a host's own threads get the cores back.
typedef void (*ckv_task)(void *arg, int64_t index, int32_t thread);
void ckv_parallel_for(ckv_thread_pool *pool, int64_t count, ckv_task task, void *arg);

#endif
