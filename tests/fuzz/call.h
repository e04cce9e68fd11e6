// One hostile call of a stage: views that would be valid, with some fields set to something else.
#ifndef CKV_FUZZ_CALL_H
#define CKV_FUZZ_CALL_H

#include <chunkkv.h>

#include "input.h"

// Elements of an array that a call may reach by its sizes: with more it is handed none.
#define MOST_ELEMENTS 20000

// What a view points to, allocated for what the view says in the end.
typedef struct rows {
  uint8_t *data, *before;
  size_t bytes;
  int32_t *lens, *table;
} rows;

typedef struct call {
  ckv_params params;
  ckv_query_view queries;
  ckv_kv_view keys, values, dst;
  ckv_scores scores;
  ckv_kept kept;
  ckv_layer layer;
  rows of_keys, of_values, of_dst;
  float *norms;
} call;

// Everything from the input.
void call_make(call *c, input *in);
void call_free(call *c);

// Whether the rows are what they were.
int call_rows_are_unchanged(const call *c);

#endif
