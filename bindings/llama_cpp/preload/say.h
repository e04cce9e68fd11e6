// Words for the user on stderr, and JSON lines for programs.
#ifndef CKVP_SAY_H
#define CKVP_SAY_H

#include <stdbool.h>
#include <stdint.h>

typedef enum ckvp_log_level { CKVP_SILENT, CKVP_WARN, CKVP_INFO, CKVP_DEBUG } ckvp_log_level;

#if defined(__GNUC__)
#  define CKVP_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#  define CKVP_PRINTF(text, first)
#endif

// How much is said, and the file for JSON lines (NULL: none), which is opened at the first of them
// and again where the host has closed it. A line that cannot be written is left out.
void ckvp_say_up_to(int32_t level);
void ckvp_say_stats(const char *path);

// One line "chunkkv: ..." if the log level asks for it.
void ckvp_say(int32_t level, const char *format, ...) CKVP_PRINTF(2, 3);

// One compaction, or why there was none.
typedef struct ckvp_event {
  const void *context;
  int32_t sequence;
  int32_t positions;      // of the sequence: what a full cache would hold
  int32_t before, after;  // tokens in the cache
  int32_t window;         // queries that chose; 0: none did
  bool is_decode;         // while generating, not after a prompt
  double prepare_ms, select_ms, compact_ms;
  const char *reason;  // NULL: it was compacted
} ckvp_event;

// A line to the user, and one to the stats file.
void ckvp_report(const ckvp_event *event);

#endif
