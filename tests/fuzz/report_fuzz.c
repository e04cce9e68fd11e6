// Words and paths from anywhere: a reason becomes one line of JSON in the stats file whatever is in
// it, a path that cannot be opened an error text.
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#include "input.h"
#include "library.h"
#include "say.h"

static char *take_text(input *in, size_t most) {
  const uint8_t *const end = in->size ? memchr(in->data, 0, in->size) : NULL;
  size_t length = end ? (size_t)(end - in->data) : in->size;
  if (length > most) length = most;
  char *text = exactly(length + 1, 1);
  take(in, text, length);
  text[length] = '\0';
  (void)take_u8(in);
  return text;
}

// A line of JSON with text in quotes and numbers between them, as this library writes.
static void check_line(const char *line, size_t bytes) {
  PROMISE(bytes > 2 && line[0] == '{' && line[bytes - 2] == '}' && line[bytes - 1] == '\n', "%s",
          line);
  bool quoted = false;
  for (size_t i = 0; i + 1 < bytes; i++) {
    PROMISE(line[i] >= ' ' && line[i] <= '~', "byte %d", line[i]);
    if (line[i] == '"') {
      quoted = !quoted;
    } else if (quoted && line[i] == '\\') {
      i++;
      PROMISE(line[i] == '"' || line[i] == '\\', "escape of %c", line[i]);
    }
  }
  PROMISE(!quoted, "an open quote in %s", line);
}

static void report(input *in) {
  static char path[64];
  static int file = -1;
  if (file < 0) {
    file = memfd_create("stats", MFD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    ckvp_say_stats(path);
  }
  PROMISE(ftruncate(file, 0) == 0, "truncate");
  ckvp_say_up_to(take_in(in, 0, 3));
  ckvp_event event = {.sequence = take_i32(in),
                      .positions = take_i32(in),
                      .before = take_i32(in),
                      .after = take_i32(in),
                      .is_decode = take_u8(in) & 1,
                      .prepare_ms = (double)(uint32_t)take_i32(in) / 1000,
                      .select_ms = (double)(uint32_t)take_i32(in) / 7,
                      .compact_ms = (double)(uint32_t)take_i32(in)};
  char *reason = take_text(in, 5000);
  event.reason = *reason ? reason : NULL;
  ckvp_report(&event);
  char line[4096];
  const ssize_t bytes = pread(file, line, sizeof line - 1, 0);
  PROMISE(bytes > 0, "nothing written");
  line[bytes] = '\0';
  check_line(line, (size_t)bytes);
  free(reason);
}

static void open_path(input *in) {
  char *path = take_text(in, 6000);
  const size_t bytes = (size_t)take_in(in, 1, 64);
  char *error = exactly(bytes, 1);
  // Under a folder that has nothing: no library that is somewhere is to be run.
  char *nowhere = exactly(strlen(path) + 32, 1);
  snprintf(nowhere, strlen(path) + 32, "/proc/self/fdinfo/none/%s", path);
  if (!strstr(path, "..") && !ckvl_library_open(nowhere, error, bytes)) {
    PROMISE(memchr(error, 0, bytes), "no end");
  }
  free(nowhere);
  free(error);
  free(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input in = {data, size};
  if (take_u8(&in) % 8 == 0) {
    open_path(&in);
  } else {
    report(&in);
  }
  return 0;
}
