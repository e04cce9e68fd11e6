// Contexts among threads, processes and signals: independent of each other, one call at a time, alone
// after a fork, and out of the way of the host's signals.
#include <stdatomic.h>
#include <string.h>
#if !defined(_WIN32)
#  include <sys/time.h>
#  include <sys/wait.h>
#endif

#include "chunkkv.h"
#include "test.h"
#include "threads_os.h"

enum { HEADS = 2, TOKENS = 700, DIM = 32, WINDOW = 8, BUDGET = 100, ROUNDS = 40 };

// A cache of one sequence and a context to compress it with.
typedef struct cache {
  float queries[HEADS * WINDOW * DIM], rows[HEADS * TOKENS * DIM];
  int32_t indices[BUDGET], len;
  ckv_context *context;
  int32_t rounds, refused;
} cache;

static void fill(cache *c) {
  uint32_t state = 7;
  for (size_t i = 0; i < sizeof c->rows / sizeof *c->rows; i++) {
    state = state * 1664525u + 1013904223u;
    c->rows[i] = (float)(state >> 8) * 0x1p-24f;
  }
  for (size_t i = 0; i < sizeof c->queries / sizeof *c->queries; i++)
    c->queries[i] = c->rows[7 * i];
}

static cache *make(int32_t threads) {
  cache *c = calloc(1, sizeof *c);
  if (!c) abort();
  fill(c);
  ckv_context_params params;
  ckv_context_default_params(&params);
  params.num_threads = threads;
  CHECK(ckv_context_create(&params, &c->context) == CKV_OK, "%d threads", threads);
  return c;
}

static void drop(cache *c) {
  ckv_context_free(c->context);
  free(c);
}

static ckv_status compress(cache *c) {
  const ckv_query_view queries = {.struct_size = sizeof queries,
                                  .batch = 1,
                                  .num_q_heads = HEADS,
                                  .window = WINDOW,
                                  .head_dim = DIM,
                                  .data = c->queries,
                                  .size_bytes = sizeof c->queries,
                                  .stride_head = WINDOW * DIM * 4,
                                  .stride_row = DIM * 4};
  const ckv_kv_view keys = {.struct_size = sizeof keys,
                            .batch = 1,
                            .num_kv_heads = HEADS,
                            .head_dim = DIM,
                            .kv_len = TOKENS,
                            .data = c->rows,
                            .size_bytes = sizeof c->rows,
                            .stride_head = TOKENS * DIM * 4,
                            .stride_token = DIM * 4};
  const ckv_layer layer = {sizeof layer, 0, &queries, &keys, NULL};
  ckv_kept kept = {sizeof kept, 1, 1, BUDGET, c->indices, &c->len};
  ckv_params params;
  ckv_default_params(&params);
  params.window = WINDOW;
  params.budget = BUDGET;
  return ckv_compress(c->context, &params, &layer, 1, &kept);
}

OS_THREAD_MAIN(work, arg) {
  cache *c = arg;
  for (int32_t i = 0; i < ROUNDS; i++) {
    fill(c);
    if (compress(c) == CKV_OK) c->rounds++;
  }
  OS_THREAD_RETURN;
}

static void contexts_in_two_threads_do_not_meet(void) {
  cache *alone = make(1), *a = make(3), *b = make(2);
  CHECK(compress(alone) == CKV_OK, "%s", ckv_context_error(alone->context));
  os_thread first = {0}, second = {0};
  CHECK(os_thread_start(&first, work, a), "a thread");
  CHECK(os_thread_start(&second, work, b), "another");
  os_thread_join(first);
  os_thread_join(second);
  CHECK(a->rounds == ROUNDS && b->rounds == ROUNDS, "%d and %d rounds", a->rounds, b->rounds);
  CHECK(memcmp(a->rows, alone->rows, sizeof a->rows) == 0, "rows of the first");
  CHECK(memcmp(b->rows, alone->rows, sizeof b->rows) == 0, "rows of the second");
  drop(alone);
  drop(a);
  drop(b);
}

typedef struct rival {
  cache *own;
  ckv_context *shared;
  int32_t done, busy, other;
} rival;

OS_THREAD_MAIN(compete, arg) {
  rival *r = arg;
  ckv_context *const own = r->own->context;
  r->own->context = r->shared;
  for (int32_t i = 0; i < ROUNDS; i++) {
    fill(r->own);
    const ckv_status status = compress(r->own);
    r->done += status == CKV_OK;
    r->busy += status == CKV_ERROR_BUSY;
    r->other += status != CKV_OK && status != CKV_ERROR_BUSY;
  }
  r->own->context = own;
  OS_THREAD_RETURN;
}

static void one_context_in_two_threads_is_busy_or_free(void) {
  cache *shared = make(2);
  rival rivals[2] = {{.own = make(1), .shared = shared->context},
                     {.own = make(1), .shared = shared->context}};
  os_thread threads[2];
  for (int32_t i = 0; i < 2; i++) {
    CHECK(os_thread_start(&threads[i], compete, &rivals[i]), "thread %d", i);
  }
  for (int32_t i = 0; i < 2; i++) os_thread_join(threads[i]);
  for (int32_t i = 0; i < 2; i++) {
    CHECK(rivals[i].other == 0 && rivals[i].done + rivals[i].busy == ROUNDS, "%d others",
          rivals[i].other);
    drop(rivals[i].own);
  }
  CHECK(rivals[0].done + rivals[1].done > 0, "nobody ever got in");
  drop(shared);
}

#if !defined(_WIN32)
// The workers are the parent's: the child computes alone, the same, and is rid of the context.
static void a_forked_child_works_alone(void) {
  cache *c = make(4), *alone = make(1);
  CHECK(compress(c) == CKV_OK && compress(alone) == CKV_OK, "before");
  fill(c);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // what waits for a thread that is not there ends so
    const bool same = compress(c) == CKV_OK && memcmp(c->rows, alone->rows, sizeof c->rows) == 0;
    ckv_context_free(c->context);
    _exit(same ? 0 : 1);
  }
  int status = -1;
  CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0, "child ended with %x",
        (unsigned)status);
  CHECK(compress(c) == CKV_OK, "the parent goes on");
  drop(c);
  drop(alone);
}

static volatile sig_atomic_t handled;
static void handle(int number) { handled = number; }

// A signal for the process goes to any thread that does not block it: never to one of ours.
static void workers_take_no_signals(void) {
  cache *c = make(4);
  CHECK(compress(c) == CKV_OK, "workers run");
  const struct sigaction action = {.sa_handler = handle};
  sigset_t set, before;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigaction(SIGUSR1, &action, NULL);
  pthread_sigmask(SIG_BLOCK, &set, &before);
  kill(getpid(), SIGUSR1);
  CHECK(compress(c) == CKV_OK, "meanwhile");
  const struct timespec wait = {.tv_nsec = 20000000};
  nanosleep(&wait, NULL);
  CHECK(handled == 0, "a worker has handled it");
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  CHECK(handled == SIGUSR1, "the host's thread handles it");
  drop(c);
}

static atomic_int ticks;
static void tick(int number) {
  (void)number;
  atomic_fetch_add(&ticks, 1);
}

// Interrupted every millisecond, a compression is what it is undisturbed.
static void signals_disturb_nothing(void) {
  cache *c = make(3), *alone = make(1);
  CHECK(compress(alone) == CKV_OK, "undisturbed");
  const struct sigaction action = {.sa_handler = tick};  // without SA_RESTART: calls see EINTR
  sigaction(SIGALRM, &action, NULL);
  const struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
  setitimer(ITIMER_REAL, &often, NULL);
  int32_t wrong = 0;
  for (int32_t i = 0; i < 10 * ROUNDS || (atomic_load(&ticks) < 20 && i < 100000); i++) {
    fill(c);
    wrong += compress(c) != CKV_OK || memcmp(c->rows, alone->rows, sizeof c->rows) != 0;
  }
  setitimer(ITIMER_REAL, &never, NULL);
  CHECK(wrong == 0 && atomic_load(&ticks) >= 20, "%d wrong in %d ticks", wrong,
        atomic_load(&ticks));
  drop(c);
  drop(alone);
}
#endif

int main(void) {
  test_begin("contexts");
  contexts_in_two_threads_do_not_meet();
  one_context_in_two_threads_is_busy_or_free();
#if !defined(_WIN32)
  a_forked_child_works_alone();
  workers_take_no_signals();
  signals_disturb_nothing();
#endif
  return test_end();
}
