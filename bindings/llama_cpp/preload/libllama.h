// The libllama of this process, by the system's own means.
#ifndef CKVP_LIBLLAMA_H
#define CKVP_LIBLLAMA_H

#include <stdbool.h>

// NULL: there is none (yet).
void *ckvp_libllama_open(void);

// One of its functions, or of ggml's; NULL: it has none of that name.
void *ckvp_libllama_symbol(void *library, const char *name);

// The function that a caller without a libllama means, known by its return address: its own object's,
// or the next one's; NULL: there is none.
void *ckvp_next_symbol(const char *name, const void *caller);

// Whether the program has Node's interface for addons.
bool ckvp_is_node(void);

#endif
