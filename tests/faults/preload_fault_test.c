// The preloaded library around the real engine while each of its allocations, and each call of the
// engine that it makes, fails in turn: the host's decode call does what it does without the library,
// and its sequence is compacted, as it would be without, or given up as after a failed computation.
//   preload_fault_test FOLDER MODEL
#include <dlfcn.h>
#include <fcntl.h>
#include <llama.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "../csrc/test.h"
#include "inject.h"

enum { PROMPT = 90, KEPT = 36, MORE = 4 };

static struct llama_model *model;
static __typeof__(&llama_decode) stock_decode;

typedef struct outcome {
  int32_t result;
  int32_t cells;  // after the prompt
  size_t bytes;
  uint8_t *state;
  int32_t further;  // of the decode calls after it
} outcome;

static struct llama_context *open_context(void) {
  struct llama_context_params params = llama_context_default_params();
  params.n_ctx = 512;
  params.n_batch = 128;
  params.n_ubatch = 64;
  params.n_seq_max = 2;
  params.n_threads = params.n_threads_batch = 1;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
  params.kv_unified = true;
  struct llama_context *ctx = llama_init_from_model(model, params);
  if (!ctx) abort();
  return ctx;
}

static int32_t decode(struct llama_context *ctx, bool stock, int32_t first, int32_t count) {
  struct llama_batch batch = llama_batch_init(count, 0, 1);
  for (int32_t i = 0; i < count; i++) {
    batch.token[i] = (first + i) * 37 % 89 + 3;
    batch.pos[i] = first + i;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = i == count - 1;
  }
  batch.n_tokens = count;
  const int32_t result = stock ? stock_decode(ctx, batch) : llama_decode(ctx, batch);
  llama_batch_free(batch);
  return result;
}

// A prompt, armed by the caller, and some tokens after it.
static outcome run(bool stock) {
  outcome o = {0};
  struct llama_context *ctx = open_context();
  o.result = decode(ctx, stock, 0, PROMPT);
  inject_pause(true);
  o.bytes = llama_state_seq_get_size(ctx, 0);
  o.state = malloc(o.bytes);
  const size_t got = llama_state_seq_get_data(ctx, o.state, o.bytes, 0);
  CHECK(got == o.bytes, "%zu of %zu bytes of state after %s", got, o.bytes, inject_failed());
  memcpy(&o.cells, o.state + 12, sizeof o.cells);
  inject_pause(false);
  for (int32_t i = 0; i < MORE && o.result == 0; i++) {
    o.further += decode(ctx, stock, PROMPT + i, 1) != 0;
  }
  llama_free(ctx);
  return o;
}

static bool same_state(const outcome *a, const outcome *b) {
  return a->bytes == b->bytes && memcmp(a->state, b->state, a->bytes) == 0;
}

static void say_nothing(enum ggml_log_level level, const char *text, void *data) {
  (void)level, (void)text, (void)data;
}

typedef void (*arming)(long number, long times);

static void arm_allocation(long number, long times) { inject_allocation(number, times > 1); }

static void every_fault(arming arm, long times, const char *what, const outcome *stock,
                        const outcome *whole) {
  long compacted = 0, untouched = 0, given_up = 0, k = 1;
  const long base = inject_live();
  for (bool fired = true; fired; k++) {
    arm(k, times);
    outcome o = run(false);
    fired = inject_failed() != NULL;
    arm(0, 1);
    if (o.result != 0) {
      given_up++;
      CHECK(o.result == -3 && o.cells == 0, "fault %ld: result %d, %d cells", k, o.result, o.cells);
    } else if (o.cells == KEPT) {
      compacted++;
      CHECK(same_state(&o, whole), "fault %ld: compacted to something else", k);
    } else {
      untouched++;
      CHECK(same_state(&o, stock), "fault %ld: %d cells, not as without", k, o.cells);
    }
    const char *const what_failed = inject_failed() ? inject_failed() : "";
    CHECK(o.further == 0 || strcmp(what_failed, "llama_decode") == 0,
          "fault %ld, %s: %d of the next tokens failed", k, what_failed, o.further);
    CHECK(inject_live() == base, "fault %ld: %ld left", k, inject_live() - base);
    free(o.state);
  }
  printf(
      "preload: %ld %s failed %ld times: %ld compacted, %ld as without the library, %ld given "
      "up\n",
      k - 2, what, times, compacted, untouched, given_up);
  CHECK(k > 5 && compacted > 0 && untouched > 3, "%ld faults", k);
}

// As a host does that closes what it does not know: the number is then another file's.
static void close_stats(const char *path) {
  for (int fd = 3; fd < 64; fd++) {
    char name[64], target[256] = "";
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    if (readlink(name, target, sizeof target - 1) <= 0) continue;
    if (strcmp(target, "/dev/full") && strncmp(target, path, strlen(path))) continue;
    close(fd);
    CHECK(open("/dev/null", O_RDWR) >= 0, "another file");
  }
  unlink(path);
}

// The stats file is a full disk, then a pipe that nobody reads, then a descriptor that the host has
// closed and given to a file of its own: the host goes on.
static void hosts_go_on_without_stats(const char *path, const outcome *whole) {
  close_stats(path);
  CHECK(symlink("/dev/full", path) == 0, "a full disk");
  outcome o = run(false);
  CHECK(same_state(&o, whole), "on a full disk");
  free(o.state);
  close_stats(path);
  CHECK(mkfifo(path, 0600) == 0, "a pipe");
  o = run(false);
  CHECK(same_state(&o, whole), "with a pipe that nobody reads");
  free(o.state);
  const int reader = open(path, O_RDONLY | O_NONBLOCK);
  o = run(false);
  free(o.state);
  char line[4096] = "";
  CHECK(read(reader, line, sizeof line - 1) > 0 && strstr(line, "\"compacted\""), "a line: %s",
        line);
  close(reader);
  o = run(false);  // SIGPIPE would end this program
  CHECK(same_state(&o, whole), "with a pipe whose reader is gone");
  free(o.state);
  unlink(path);
}

static volatile sig_atomic_t ticks;
static void tick(int number) { ticks += number != 0; }

// Every millisecond a signal, whose calls see EINTR.
static void signals_disturb_nothing(const outcome *whole) {
  const struct sigaction action = {.sa_handler = tick};
  const struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
  sigaction(SIGALRM, &action, NULL);
  setitimer(ITIMER_REAL, &often, NULL);
  for (int32_t i = 0; i < 20 || (ticks < 50 && i < 1000); i++) {
    outcome o = run(false);
    CHECK(o.result == 0 && same_state(&o, whole), "run %d", i);
    free(o.state);
  }
  setitimer(ITIMER_REAL, &never, NULL);
  CHECK(ticks >= 50, "%d signals", (int)ticks);
}

int main(int argc, char **argv) {
  test_begin("preload_fault_test");
  if (argc != 3) return fprintf(stderr, "Expected FOLDER MODEL\n"), 2;
  char stats[] = "/tmp/chunkkv-stats-XXXXXX";
  CHECK(mkstemp(stats) >= 0, "a stats file");
  setenv("CHUNKKV_KEEP", "0.4", 1);
  setenv("CHUNKKV_MIN_TOKENS", "16", 1);
  setenv("CHUNKKV_WINDOW", "16", 1);
  setenv("CHUNKKV_THREADS", "2", 1);
  setenv("CHUNKKV_LOG_LEVEL", "silent", 1);
  setenv("CHUNKKV_STATS", stats, 1);
  __typeof__(&ggml_backend_load_all_from_path) load;
  *(void **)&load = dlsym(RTLD_DEFAULT, "ggml_backend_load_all_from_path");
  *(void **)&stock_decode = dlsym(RTLD_NEXT, "llama_decode");
  Dl_info info;
  CHECK(load && dladdr(*(void **)&stock_decode, &info), "the engine");
  void *engine = dlopen(LLAMA_LIBRARY, RTLD_NOLOAD | RTLD_LAZY);
  CHECK(engine, "%s", LLAMA_LIBRARY);
  *(void **)&stock_decode = dlsym(engine, "llama_decode");
  load(argv[1]);
  llama_backend_init();
  llama_log_set(say_nothing, NULL);
  struct llama_model_params params = llama_model_default_params();
  model = llama_model_load_from_file(argv[2], params);
  CHECK(model, "%s", argv[2]);
  if (!model) return test_end();
  outcome stock = run(true), whole = run(false);
  CHECK(stock.cells == PROMPT && whole.cells == KEPT, "%d and %d cells", stock.cells, whole.cells);
  every_fault(arm_allocation, 1, "allocations", &stock, &whole);
  every_fault(arm_allocation, 2, "allocations and all after them", &stock, &whole);
  every_fault(inject_engine, 1, "engine calls", &stock, &whole);
  every_fault(inject_engine, 2, "engine calls", &stock, &whole);
  hosts_go_on_without_stats(stats, &whole);
  signals_disturb_nothing(&whole);
  free(stock.state);
  free(whole.state);
  llama_model_free(model);
  return test_end();
}
