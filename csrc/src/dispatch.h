// Which instruction sets are built in and run here, and the kernels of each.
#ifndef CKV_DISPATCH_H
#define CKV_DISPATCH_H

#include <stdint.h>

// The most preferred ckv_isa that this CPU runs. Never fails: serial runs everywhere.
int32_t ckv_isa_best(void);

#endif
