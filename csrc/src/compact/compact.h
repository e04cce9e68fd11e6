// Stage three: kept indices -> rows moved.
#ifndef CKV_COMPACT_H
#define CKV_COMPACT_H

#include "../context.h"

// Moves row kept[i] of src to row i of dst. dst may be src itself (in place): indices ascend, so
// kept[i] >= i and a write never hits a row that a later read needs. All checked before.
ckv_status ckv_compact_rows(ckv_context *ctx, const ckv_kv_view *src, const ckv_kv_view *dst,
                            const ckv_kept *kept);

#endif
