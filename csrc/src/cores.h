// How many cores this process may use.
#ifndef CKV_CORES_H
#define CKV_CORES_H

#include <stdint.h>

// At least 1: the affinity mask, lowered to what the cgroup's CPU quota (v1 or v2) pays for.
int32_t ckv_usable_cores(void);

#endif
