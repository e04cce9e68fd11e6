// What snapkv does, for methods that do it with other budgets.
#ifndef CKV_SNAPKV_H
#define CKV_SNAPKV_H

#include "method.h"

void ckv_snapkv_finish(const ckv_finish *finish);
int32_t ckv_snapkv_select(const ckv_choice *choice);
int64_t ckv_snapkv_scratch(const ckv_params *params, int32_t n);

#endif
