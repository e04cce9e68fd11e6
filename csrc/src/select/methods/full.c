// full: keep everything. The reference that the others are measured against.
#include <stddef.h>

#include "../budget.h"
#include "method.h"

static int32_t select_all(const ckv_choice *choice) {
  return ckv_keep_range(choice->indices, 0, 0, choice->kv_len);
}

const ckv_method_ops ckv_method_full = {
    .score_heads = CKV_HEADS_NONE,
    .kept_heads = CKV_HEADS_SHARED,
    .select = select_all,
};
