// What the engine logs while it serves a call, kept for error texts instead of printed.
#ifndef CKVL_LOG_H
#define CKVL_LOG_H

#include <llama.h>

// A ggml_log_callback. Warnings and errors go to a buffer of the calling thread, the rest nowhere.
void ckvl_log_sink(enum ggml_log_level level, const char *text, void *user_data);

// Forgets what the engine said on this thread.
void ckvl_log_clear(void);

// What it said since, on one line; "no reason given" if nothing.
const char *ckvl_log_text(void);

#endif
