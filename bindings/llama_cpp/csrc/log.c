#include "log.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

// Per thread: a call's messages come from the thread that makes it, and several models may load
// at once.
static _Thread_local struct {
  size_t length;
  bool listening;  // whether a continuation belongs to a message that is kept
  char text[768];
} said;

static void append(const char *text) {
  for (; *text && said.length + 1 < sizeof said.text; text++) {
    const bool line_end = *text == '\n';
    if (line_end && (said.length == 0 || said.text[said.length - 1] == ' ')) continue;
    if (line_end && said.length + 3 < sizeof said.text) {
      said.text[said.length++] = ';';
      said.text[said.length++] = ' ';
    } else if (!line_end) {
      said.text[said.length++] = *text;
    }
  }
  said.text[said.length] = '\0';
}

void ckvl_log_sink(enum ggml_log_level level, const char *text, void *user_data) {
  (void)user_data;
  if (level != GGML_LOG_LEVEL_CONT) {
    said.listening = level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR;
  }
  if (said.listening) append(text);
}

void ckvl_log_clear(void) {
  said.length = 0;
  said.listening = false;
  said.text[0] = '\0';
}

const char *ckvl_log_text(void) {
  while (said.length > 0 && strchr("; ", said.text[said.length - 1])) {
    said.text[--said.length] = '\0';
  }
  return said.length ? said.text : "no reason given";
}
