// What the user wants, from environment variables: see README, "Drop-in".
#ifndef CKVP_SETTINGS_H
#define CKVP_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include <chunkkv.h>

typedef struct ckvp_settings {
  bool is_on;          // false: something is wrong with them, every call passes through
  double keep;         // fraction of a sequence's positions to keep
  ckv_params params;   // budget 0: by `keep`
  int32_t min_tokens;  // new tokens above which a prompt is compressed
  int32_t decode_budget, decode_slack;  // 0: generation does not compress
  int32_t num_threads;
} ckvp_settings;

// Read once, at the first call. Complaints go to stderr.
const ckvp_settings *ckvp_settings_get(void);

#endif
