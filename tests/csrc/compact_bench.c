// compact against what the machine can do: milliseconds, GB/s and of_limit, in place.
//   compact_bench [--threads N] [--n N] [--shape KV/D] [--dtype NAME] [--layout NAME] [--runs N]
//                 [--chunk N] [--keep X] [--per-head 1] [--mib N]
// The caches rotate, so that rows come from memory. of_limit = limit time / our time; the limit is
// the kept rows' bytes read and written at the measured copy bandwidth.
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "alloc.h"
#include "context.h"
#include "compact/copy.h"
#include "limits.h"
#include "test.h"
