#include "say.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 2048

static atomic_int most = CKVP_INFO;

// The stats file. The host may have closed its descriptor, and have another file under that number:
// so it is known by what it is.
static pthread_mutex_t stats_lock = PTHREAD_MUTEX_INITIALIZER;
static const char *stats_path;
static int stats_file = -1;
static dev_t stats_device;
static ino_t stats_inode;
static bool is_cut;      // the last line is there in part
static bool is_failing;  // which has been said

void ckvp_say_up_to(int32_t level) { atomic_store(&most, level); }

void ckvp_say_stats(const char *path) { stats_path = path; }

static bool is_pending(int signal) {
  sigset_t pending;
  return sigpending(&pending) == 0 && sigismember(&pending, signal) == 1;
}

// One write per line: lines of several threads do not mix. Returns the bytes that were written; if
// that is not all, errno says why. Never waits, and where nobody reads any more the host gets no
// SIGPIPE for it.
static size_t write_text(int file, const char *text, size_t bytes) {
  sigset_t pipe, before;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  const bool was_pending = is_pending(SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, &before);
  size_t done = 0;
  int failure = 0;
  while (done < bytes && failure == 0) {
    const ssize_t written = write(file, text + done, bytes - done);
    if (written > 0) done += (size_t)written;
    if (written == 0) failure = EIO;
    if (written < 0 && errno != EINTR) failure = errno;
  }
  int taken;
  if (failure == EPIPE && !was_pending && is_pending(SIGPIPE)) sigwait(&pipe, &taken);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  errno = failure;
  return done;
}

void ckvp_say(int32_t level, const char *format, ...) {
  if (level > atomic_load(&most)) return;
  const int host_errno = errno;
  char line[LINE_BYTES] = "chunkkv: ";
  const size_t prefix = strlen(line);
  va_list args;
  va_start(args, format);
  vsnprintf(line + prefix, sizeof line - prefix - 1, format, args);
  va_end(args);
  strcat(line, "\n");
  write_text(STDERR_FILENO, line, strlen(line));
  errno = host_errno;
}

// A text for inside JSON quotes.
static void escape(const char *text, char *to, size_t size) {
  size_t length = 0;
  for (; *text && length + 2 < size; text++) {
    const unsigned char byte = (unsigned char)*text;
    if (byte == '"' || byte == '\\') to[length++] = '\\';
    to[length++] = byte < ' ' ? ' ' : byte > '~' ? '?' : *text;
  }
  to[length] = '\0';
}

// Milliseconds with three places; "%.3f" writes a comma in some of the host's languages.
#define MS "%lld.%03lld"
#define MS_OF(ms) (long long)(ms), (long long)((ms) * 1e3) % 1000

static void format_line(const ckvp_event *event, char line[LINE_BYTES]) {
  char reason[LINE_BYTES / 2];
  escape(event->reason ? event->reason : "", reason, sizeof reason);
  struct timespec now;
  timespec_get(&now, TIME_UTC);
  snprintf(line, LINE_BYTES,
           "{\"time\":%lld.%03ld,\"event\":\"%s\",\"context\":\"%p\",\"sequence\":%d,"
           "\"positions\":%d,\"before\":%d,\"after\":%d,\"window\":%d,\"while\":\"%s\",\"prepare_"
           "ms\":" MS ",\"select_ms\":" MS ",\"compact_ms\":" MS ",\"reason\":\"%s\"}\n",
           (long long)now.tv_sec, now.tv_nsec / 1000000, event->reason ? "skipped" : "compacted",
           event->context, event->sequence, event->positions, event->before, event->after,
           event->window, event->is_decode ? "generating" : "prompt", MS_OF(event->prepare_ms),
           MS_OF(event->select_ms), MS_OF(event->compact_ms), reason);
}

static bool is_open(void) {
  struct stat found;
  return stats_file >= 0 && fstat(stats_file, &found) == 0 && found.st_dev == stats_device &&
         found.st_ino == stats_inode;
}

// False: errno says why. A pipe that nobody reads is no reason to wait.
static bool open_stats(void) {
  if (is_open()) return true;
  do {
    stats_file =
        open(stats_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);
  } while (stats_file < 0 && errno == EINTR);
  struct stat found;
  if (stats_file < 0 || fstat(stats_file, &found) != 0) return false;
  stats_device = found.st_dev;
  stats_inode = found.st_ino;
  return true;
}

static bool append(const char *line) {
  if (!open_stats()) return false;
  if (is_cut && write_text(stats_file, "\n", 1) == 0) return false;
  is_cut = false;
  const size_t bytes = strlen(line), written = write_text(stats_file, line, bytes);
  is_cut = written > 0 && written < bytes;
  return written == bytes;
}

static void write_stats(const ckvp_event *event) {
  if (!stats_path) return;
  const int host_errno = errno;
  char line[LINE_BYTES], why[128];
  format_line(event, line);
  pthread_mutex_lock(&stats_lock);
  const bool failed = !append(line);
  if (failed && !is_failing) {
    const int failure = errno;
    if (strerror_r(failure, why, sizeof why) != 0) snprintf(why, sizeof why, "error %d", failure);
    ckvp_say(CKVP_WARN,
             "expected to append to %s but found: %s; lines are left out until that ends",
             stats_path, why);
  }
  is_failing = failed;
  pthread_mutex_unlock(&stats_lock);
  errno = host_errno;
}

void ckvp_report(const ckvp_event *event) {
  if (event->reason) {
    ckvp_say(CKVP_WARN, "sequence %d stays as it is: %s", event->sequence, event->reason);
  } else {
    ckvp_say(CKVP_INFO, "sequence %d: %d -> %d tokens in the cache, %.1f ms%s", event->sequence,
             event->before, event->after, event->prepare_ms + event->select_ms + event->compact_ms,
             event->is_decode ? ", while generating" : "");
  }
  write_stats(event);
}
