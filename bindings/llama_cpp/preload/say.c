#include "say.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 2048

static atomic_int most = CKVP_INFO;
static const char *stats_path;
static pthread_mutex_t stats_lock = PTHREAD_MUTEX_INITIALIZER;

void ckvp_say_up_to(int32_t level) { atomic_store(&most, level); }

void ckvp_say_stats(const char *path) { stats_path = path; }

// One write per line: lines of several threads do not mix.
static void write_line(int file, const char *line) {
  size_t bytes = strlen(line);
  while (bytes > 0) {
    const ssize_t written = write(file, line, bytes);
    if (written <= 0) return;
    line += written;
    bytes -= (size_t)written;
  }
}

void ckvp_say(int32_t level, const char *format, ...) {
  if (level > atomic_load(&most)) return;
  char line[LINE_BYTES] = "chunkkv: ";
  const size_t prefix = strlen(line);
  va_list args;
  va_start(args, format);
  vsnprintf(line + prefix, sizeof line - prefix - 1, format, args);
  va_end(args);
  strcat(line, "\n");
  write_line(STDERR_FILENO, line);
}

// A text for inside JSON quotes.
static void escape(const char *text, char *to, size_t size) {
  size_t length = 0;
  for (; *text && length + 2 < size; text++) {
    if (*text == '"' || *text == '\\') to[length++] = '\\';
    to[length++] = (unsigned char)*text < ' ' ? ' ' : *text;
  }
  to[length] = '\0';
}

static void write_stats(const ckvp_event *event) {
  static int file = -1;
  if (!stats_path) return;
  char reason[LINE_BYTES / 2], line[LINE_BYTES];
  escape(event->reason ? event->reason : "", reason, sizeof reason);
  struct timespec now;
  timespec_get(&now, TIME_UTC);
  snprintf(line, sizeof line,
           "{\"time\":%lld.%03ld,\"event\":\"%s\",\"context\":\"%p\",\"sequence\":%d,"
           "\"positions\":%d,\"before\":%d,\"after\":%d,\"window\":%d,\"while\":\"%s\",\"prepare_"
           "ms\":%.3f,"
           "\"select_ms\":%.3f,\"compact_ms\":%.3f,\"reason\":\"%s\"}\n",
           (long long)now.tv_sec, now.tv_nsec / 1000000, event->reason ? "skipped" : "compacted",
           event->context, event->sequence, event->positions, event->before, event->after,
           event->window, event->is_decode ? "generating" : "prompt", event->prepare_ms,
           event->select_ms, event->compact_ms, reason);
  pthread_mutex_lock(&stats_lock);
  if (file < 0) file = open(stats_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file < 0) {
    ckvp_say(CKVP_WARN, "expected to write %s but could not open it", stats_path);
    stats_path = NULL;
  } else {
    write_line(file, line);
  }
  pthread_mutex_unlock(&stats_lock);
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
