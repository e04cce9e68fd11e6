// The operating system's threads, locks and condition variables under one set of names.
#ifndef CKV_THREADS_OS_H
#define CKV_THREADS_OS_H

#include <stdbool.h>
#include <stdint.h>

#if defined(_WIN32)
#  define WIN32_LEAN_AND_MEAN
#  include <windows.h>

typedef HANDLE os_thread;
typedef SRWLOCK os_mutex;
typedef CONDITION_VARIABLE os_cond;
#  define OS_THREAD_MAIN(name, arg) static DWORD WINAPI name(LPVOID arg)
#  define OS_THREAD_RETURN return 0

static inline bool os_mutex_init(os_mutex *mutex) { return InitializeSRWLock(mutex), true; }
static inline void os_mutex_destroy(os_mutex *mutex) { (void)mutex; }
static inline void os_lock(os_mutex *mutex) { AcquireSRWLockExclusive(mutex); }
static inline void os_unlock(os_mutex *mutex) { ReleaseSRWLockExclusive(mutex); }
static inline bool os_cond_init(os_cond *cond) { return InitializeConditionVariable(cond), true; }
static inline void os_cond_destroy(os_cond *cond) { (void)cond; }
static inline void os_wait(os_cond *cond, os_mutex *mutex) {
  SleepConditionVariableSRW(cond, mutex, INFINITE, 0);
}
static inline void os_wake_all(os_cond *cond) { WakeAllConditionVariable(cond); }
static inline bool os_thread_start(os_thread *thread, LPTHREAD_START_ROUTINE main, void *arg) {
  *thread = CreateThread(NULL, 0, main, arg, 0, NULL);
  return *thread != NULL;
}
static inline void os_thread_join(os_thread thread) {
  WaitForSingleObject(thread, INFINITE);
  CloseHandle(thread);
}

// Processes do not fork here.
static inline int64_t os_process(void) { return 0; }

static inline int64_t os_nanoseconds(void) {
  LARGE_INTEGER count, frequency;
  QueryPerformanceCounter(&count);
  QueryPerformanceFrequency(&frequency);
  return (int64_t)((double)count.QuadPart * 1e9 / (double)frequency.QuadPart);
}
#else
#  include <pthread.h>
#  include <signal.h>
#  include <time.h>
#  include <unistd.h>

typedef pthread_t os_thread;
typedef pthread_mutex_t os_mutex;
typedef pthread_cond_t os_cond;
#  define OS_THREAD_MAIN(name, arg) static void *name(void *arg)
#  define OS_THREAD_RETURN return NULL

static inline bool os_mutex_init(os_mutex *mutex) { return pthread_mutex_init(mutex, NULL) == 0; }
static inline void os_mutex_destroy(os_mutex *mutex) { pthread_mutex_destroy(mutex); }
static inline void os_lock(os_mutex *mutex) { pthread_mutex_lock(mutex); }
static inline void os_unlock(os_mutex *mutex) { pthread_mutex_unlock(mutex); }
static inline bool os_cond_init(os_cond *cond) { return pthread_cond_init(cond, NULL) == 0; }
static inline void os_cond_destroy(os_cond *cond) { pthread_cond_destroy(cond); }
static inline void os_wait(os_cond *cond, os_mutex *mutex) { pthread_cond_wait(cond, mutex); }
static inline void os_wake_all(os_cond *cond) { pthread_cond_broadcast(cond); }
// Signals are the host's: none is handled on a thread that it does not know, whatever it blocks on
// its own. Those of a fault stay: blocked, they would end the process without the host's handler.
static inline bool os_thread_start(os_thread *thread, void *(*main)(void *), void *arg) {
  static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
  sigset_t blocked, before;
  sigfillset(&blocked);
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&blocked, faults[i]);
  if (pthread_sigmask(SIG_SETMASK, &blocked, &before) != 0) return false;
  const bool started = pthread_create(thread, NULL, main, arg) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return started;
}
static inline void os_thread_join(os_thread thread) { pthread_join(thread, NULL); }

static inline int64_t os_process(void) { return getpid(); }

static inline int64_t os_nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
#endif

// A hint to the core that this is a spin loop.
static inline void os_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");  // longer than yield, which is a no-op on most cores
#endif
}

#endif
