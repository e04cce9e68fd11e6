// Keeps the engine's own log quiet while it serves this library: reads that are meant to stop early
// are reported as errors there. What other threads log in the meantime passes through.
#ifndef CKVP_QUIET_H
#define CKVP_QUIET_H

#include "host.h"

// They pair, on one thread; other threads that begin wait until this one ends.
void ckvp_quiet_begin(const ckvp_host *host);
void ckvp_quiet_end(const ckvp_host *host);

#endif
