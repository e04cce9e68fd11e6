// The libllama of this process, by the system's own means.
#ifndef CKVP_LIBLLAMA_H
#define CKVP_LIBLLAMA_H

// NULL: there is none (yet).
void *ckvp_libllama_open(void);

// One of its functions, or of ggml's; NULL: it has none of that name.
void *ckvp_libllama_symbol(void *library, const char *name);

#endif
