// What a test says to fault.c.
#ifndef CKV_INJECT_H
#define CKV_INJECT_H

#include <stdbool.h>

#define INJECT_API __attribute__((visibility("default")))

// Allocations, threads started, files opened: the `number`-th from now on fails, 0: none; with
// `forever` all after it, too.
INJECT_API void inject_allocation(long number, bool forever);

// Calls of the engine that change or read its memory: likewise, once or `times` in a row.
INJECT_API void inject_engine(long number, long times);

// While the test itself looks: nothing fails, nothing is counted.
INJECT_API void inject_pause(bool paused);

// How many of each there were since, and which of them failed last since one was to fail; NULL: none.
INJECT_API long inject_allocations(void);
INJECT_API long inject_engine_calls(void);
INJECT_API const char *inject_failed(void);

// Blocks, threads, files and locales that have not been given back.
INJECT_API long inject_live(void);

#endif
