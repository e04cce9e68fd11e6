// Layers of one place that the library takes in one call: consecutive ones of equal heads, dimensions
// and scale.
#ifndef CKVL_COMPACTION_GROUP_H
#define CKVL_COMPACTION_GROUP_H

#include "compaction.h"

#define CKVL_GROUP_LAYERS 32  // what one launch scores on a GPU

typedef struct ckvl_group {
  int32_t count;
  int32_t global[CKVL_GROUP_LAYERS];  // numbers of the layers
  ckv_query_view queries[CKVL_GROUP_LAYERS];
  ckv_kv_view keys[CKVL_GROUP_LAYERS], values[CKVL_GROUP_LAYERS];
  ckv_layer layers[CKVL_GROUP_LAYERS];
  ckv_kept kept[CKVL_GROUP_LAYERS];
} ckvl_group;

// The next of the place's layers first, first + step, ..., at most so many, with their keys and
// values; queries and kept are left to the caller. Returns where the rest begins.
int32_t ckvl_group_find(const ckvl_compaction *c, int32_t place, int32_t first, int32_t step,
                        int32_t most, ckvl_group *group);

// Workspace that the library needs for any group of the place, and with which it is fastest. With
// queries: of a method that scores; without: to move rows.
ckv_status ckvl_group_workspace(ckvl_compaction *c, int32_t place, const ckv_params *params,
                                int32_t most, bool queries, int64_t *least, int64_t *best);

// params as a group's layers have them: each of which selects.
ckv_params ckvl_group_params(const ckvl_compaction *c, const ckvl_group *group,
                             const ckv_params *params);

// The library's own words, in the engine's error.
ckv_status ckvl_group_fail(ckvl_compaction *c, const ckvl_group *group, ckv_status status);

#endif
