#define _GNU_SOURCE  // secure_getenv, strtod_l
#include "settings.h"

#include <errno.h>
#include <locale.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#if defined(__APPLE__)
#  include <unistd.h>
#  include <xlocale.h>
#else
#  include <sys/auxv.h>
#endif

#include "say.h"

static ckvp_settings settings;

static void refuse(const char *name, const char *expected, const char *found) {
  ckvp_say(CKVP_WARN, "expected %s to be %s but found \"%s\": nothing is compressed", name,
           expected, found);
  settings.is_on = false;
}

// A program with more rights than its caller: the environment is the caller's.
static bool is_privileged(void) {
#if defined(__APPLE__)
  return issetugid() != 0;
#else
  return getauxval(AT_SECURE) != 0;
#endif
}

static const char *variable(const char *name) {
#if defined(__APPLE__)
  const char *const text = is_privileged() ? NULL : getenv(name);
#else
  const char *const text = secure_getenv(name);
#endif
  return text && *text ? text : NULL;
}

static void read_integer(const char *name, int32_t low, int32_t high, int32_t *value) {
  const char *const text = variable(name);
  if (!text) return;
  char *end;
  errno = 0;
  const long number = strtol(text, &end, 10);
  if (*end || errno || number < low || number > high) {
    refuse(name, low ? "a whole number above 0 in range" : "a whole number in range", text);
  } else {
    *value = (int32_t)number;
  }
}

// A number with a point, whatever the host's language has in its place; -1: it is none.
static double read_fraction(const char *text) {
  const locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  if (!plain) return -1;
  char *end;
  const double number = strtod_l(text, &end, plain);
  freelocale(plain);
  return *end ? -1 : number;
}

static void read_keep(void) {
  const char *const text = variable("CHUNKKV_KEEP");
  if (!text) return;
  const double number = read_fraction(text);
  if (!(number > 0.0 && number <= 1.0)) {
    refuse("CHUNKKV_KEEP", "above 0 and at most 1", text);
  } else {
    settings.keep = number;
  }
}

static void read_name(const char *name, const char *expected, const char *(*name_of)(int32_t),
                      int32_t *value) {
  const char *const text = variable(name);
  if (!text) return;
  for (int32_t i = 0; name_of(i); i++) {
    if (strcmp(text, name_of(i)) != 0) continue;
    *value = i;
    return;
  }
  refuse(name, expected, text);
}

// h2o needs the queries of whole prompts, pyramidkv cells hidden in every decode call: only the
// library API offers them.
static const char *method_name(int32_t method) {
  return method == CKV_METHOD_H2O || method == CKV_METHOD_PYRAMIDKV ? NULL
                                                                    : ckv_method_name(method);
}

static const char *level_name(int32_t level) {
  static const char *const names[] = {"silent", "warn", "info", "debug"};
  return level <= CKVP_DEBUG ? names[level] : NULL;
}

static void read_all(void) {
  settings = (ckvp_settings){.is_on = true, .keep = 0.2, .min_tokens = 512};
  ckv_default_params(&settings.params);
  if (is_privileged()) {
    ckvp_say(CKVP_WARN, "nothing is compressed: this program has other rights than its user");
    settings.is_on = false;
    return;
  }
  settings.params.budget = 0;
  int32_t level = CKVP_INFO;
  read_name("CHUNKKV_LOG_LEVEL", "silent, warn, info or debug", level_name, &level);
  ckvp_say_up_to(level);
  ckvp_say_stats(variable("CHUNKKV_STATS"));
  read_keep();
  read_integer("CHUNKKV_BUDGET", 1, INT32_MAX, &settings.params.budget);
  read_name("CHUNKKV_METHOD",
            "full, streaming_llm, snapkv or chunkkv, which a preloaded library can do,",
            method_name, &settings.params.method);
  read_integer("CHUNKKV_CHUNK_SIZE", 1, 1 << 20, &settings.params.chunk_size);
  read_integer("CHUNKKV_WINDOW", 1, 64, &settings.params.window);
  read_integer("CHUNKKV_REUSE", 1, 1024, &settings.params.layer_reuse);
  read_integer("CHUNKKV_SPREAD", 1, 64, &settings.params.spread);
  read_integer("CHUNKKV_MIN_TOKENS", 0, INT32_MAX, &settings.min_tokens);
  read_integer("CHUNKKV_DECODE_BUDGET", 1, INT32_MAX / 2, &settings.decode_budget);
  settings.decode_slack = settings.decode_budget / 4 > 64 ? settings.decode_budget / 4 : 64;
  read_integer("CHUNKKV_DECODE_SLACK", 1, INT32_MAX / 2, &settings.decode_slack);
  read_integer("CHUNKKV_THREADS", 0, 1024, &settings.num_threads);
}

const ckvp_settings *ckvp_settings_get(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, read_all);
  return &settings;
}
