#include "call.h"

// A view of a small cache, contiguous or paged, whose rows fill its memory to the end.
static ckv_kv_view make_view(input *in, const ckv_kv_view *like, size_t *bytes) {
  static const int32_t DIMS[] = {1, 8, 32, 64, 33, 96};
  ckv_kv_view v = {.struct_size = sizeof v};
  v.dtype = like ? like->dtype : take_in(in, CKV_F32, CKV_F8_E4M3);
  v.batch = like ? like->batch : take_in(in, 0, 3);
  v.num_kv_heads = like ? like->num_kv_heads : take_in(in, 1, 4);
  v.head_dim = like ? like->head_dim : DIMS[take_in(in, 0, 5)];
  if (v.dtype == CKV_Q8_0 || v.dtype == CKV_Q4_0) v.head_dim = 32;
  v.kv_len = like ? like->kv_len : take_in(in, 0, 70);
  const int64_t row = ckv_row_bytes(v.dtype, v.head_dim);
  const int32_t layout = take_in(in, 0, 3);
  if (layout == 0) {  // [batch][head][token]
    v.stride_token = row;
    v.stride_head = row * v.kv_len;
    v.stride_batch = v.stride_head * v.num_kv_heads;
    *bytes = (size_t)(v.stride_batch * v.batch);
  } else if (layout == 1) {  // [batch][token][head]
    v.stride_head = row;
    v.stride_token = row * v.num_kv_heads;
    v.stride_batch = v.stride_token * v.kv_len;
    *bytes = (size_t)(v.stride_batch * v.batch);
  } else {
    v.block_size = layout == 2 ? 1 : take_in(in, 1, 9);
    v.max_blocks = (v.kv_len + v.block_size - 1) / v.block_size;
    v.num_blocks = v.batch * v.max_blocks + take_in(in, 0, 3);
    v.stride_head = row;
    v.stride_token = row * v.num_kv_heads;
    v.stride_block = v.stride_token * v.block_size;
    *bytes = (size_t)(v.stride_block * v.num_blocks);
  }
  v.size_bytes = (int64_t)*bytes;
  return v;
}

static void break_view(input *in, ckv_kv_view *v) {
  int32_t *const small[] = {&v->dtype,        &v->device,     &v->batch,
                            &v->num_kv_heads, &v->head_dim,   &v->kv_len,
                            &v->block_size,   &v->max_blocks, &v->num_blocks};
  int64_t *const large[] = {&v->size_bytes, &v->stride_batch, &v->stride_head, &v->stride_token,
                            &v->stride_block};
  const int32_t field = take_in(in, 0, 15);
  const int64_t number = take_odd_number(in);
  if (field < 9) *small[field] = (int32_t)number;
  if (field >= 9 && field < 14) *large[field - 9] = number;
  if (field == 14) v->struct_size = (uint32_t)number;
}

// Memory for what the view says now, and no byte more. size_bytes never promises more than is there:
// that is the caller's word, which nobody can check.
static rows back_view(input *in, ckv_kv_view *v, size_t bytes) {
  rows r = {.bytes = bytes};
  const uint32_t pattern = (uint32_t)take_i32(in);
  const uint8_t kind = take_u8(in);
  r.data = exactly(bytes, pattern);
  // f32, f16 and bf16 of random bits are often NaN: mostly small numbers instead.
  for (size_t i = 0; i < bytes && kind % 4 != 0; i++) r.data[i] &= 0x3f;
  r.before = malloc(bytes + 1);
  PROMISE(r.before, "memory");
  memcpy(r.before, r.data, bytes);
  v->data = kind == 255 ? NULL : r.data;
  if (v->size_bytes > (int64_t)bytes) v->size_bytes = (int64_t)bytes;
  const int64_t batch = v->batch > 0 ? v->batch : 0;
  if (kind & 8 && batch <= MOST_ELEMENTS) {
    r.lens = exactly(sizeof(int32_t) * (size_t)batch, pattern);
    for (int64_t b = 0; b < batch; b++) {
      r.lens[b] = kind & 16 ? (int32_t)take_odd_number(in)
                            : (int32_t)((int64_t)v->kv_len - take_in(in, 0, 3));
    }
    v->kv_lens = r.lens;
  }
  const int64_t width = v->max_blocks > 0 ? v->max_blocks : 0;
  if (v->block_size != 0 && width <= MOST_ELEMENTS && batch <= MOST_ELEMENTS &&
      width * batch <= MOST_ELEMENTS) {
    r.table = exactly(sizeof(int32_t) * (size_t)(batch * width), pattern);
    for (int64_t i = 0; i < batch * width; i++) {
      r.table[i] = (int32_t)(kind & 32 ? batch * width - 1 - i : i);
    }
    if (kind & 64 && batch * width > 0) {
      r.table[take_u8(in) % (batch * width)] = (int32_t)take_odd_number(in);
    }
    v->block_table = r.table;
  }
  return r;
}

static void free_rows(rows *r) {
  free(r->data);
  free(r->before);
  free(r->lens);
  free(r->table);
}

static void make_params(input *in, ckv_params *p) {
  ckv_default_params(p);
  p->method = take_in(in, 0, 7);
  p->budget = take_in(in, 1, 90);
  p->window = take_in(in, 1, 12);
  p->chunk_size = take_in(in, 1, 12);
  p->chunk_reduce = take_in(in, 0, 2);
  p->fill = take_in(in, 0, 1);
  p->layer_reuse = take_in(in, 1, 3);
  p->pool_size = 1 + 2 * take_in(in, 0, 4);
  p->num_sinks = take_in(in, 0, 8);
  p->spread = 1 + p->num_sinks;  // of no byte of its own: seeds mean what they meant
  const uint8_t field = take_u8(in);
  if (field >= 13) return;
  const int64_t number = take_odd_number(in);
  uint32_t bits = (uint32_t)number;
  if (field < 10) memcpy((char *)p + 4 * field, &bits, sizeof bits);
  if (field == 10) memcpy(&p->scale, &bits, sizeof bits);
  if (field == 11) memcpy(&p->logit_softcap, &bits, sizeof bits);
  if (field == 12) memcpy(&p->spread, &bits, sizeof bits);
}

static void make_queries(input *in, call *c) {
  ckv_query_view *q = &c->queries;
  const int32_t group = take_in(in, 1, 3);
  *q = (ckv_query_view){.struct_size = sizeof *q};
  q->dtype = take_in(in, CKV_F32, CKV_BF16);
  q->batch = c->keys.batch;
  q->num_q_heads = (int32_t)((int64_t)group * c->keys.num_kv_heads);
  q->window = c->params.window;
  q->head_dim = c->keys.head_dim;
  const bool known = q->batch >= 0 && q->batch <= 3 && q->num_q_heads > 0 && q->num_q_heads <= 12 &&
                     q->window > 0 && q->window <= 64 && q->head_dim > 0 && q->head_dim <= 96;
  size_t bytes = 0;
  if (known) {
    const int64_t row = ckv_row_bytes(q->dtype, q->head_dim);
    q->stride_row = row;
    q->stride_head = row * q->window;
    q->stride_batch = q->stride_head * q->num_q_heads;
    bytes = (size_t)(q->stride_batch * q->batch);
  }
  q->size_bytes = (int64_t)bytes;
  const uint8_t field = take_u8(in);
  int32_t *const small[] = {&q->dtype,  &q->device,   &q->batch,   &q->num_q_heads,
                            &q->window, &q->head_dim, &q->reserved};
  int64_t *const large[] = {&q->size_bytes, &q->stride_batch, &q->stride_head, &q->stride_row};
  if (field < 11) {
    const int64_t number = take_odd_number(in);
    if (field < 7) *small[field] = (int32_t)number;
    if (field >= 7) *large[field - 7] = number;
  }
  if (q->size_bytes > (int64_t)bytes) q->size_bytes = (int64_t)bytes;
  const uint32_t pattern = (uint32_t)take_i32(in);
  uint8_t *data = exactly(bytes, pattern);
  for (size_t i = 0; i < bytes && pattern % 4 != 0; i++) data[i] &= 0x3f;
  q->data = data;
  const int64_t heads = (int64_t)q->batch * q->num_q_heads;
  if (pattern & 4 && q->batch >= 0 && q->num_q_heads >= 0 && q->window >= 0 &&
      heads <= MOST_ELEMENTS && heads * q->window <= MOST_ELEMENTS) {
    c->norms = exactly(sizeof(float) * (size_t)(heads * q->window), pattern);
    for (int64_t i = 0; i < heads * q->window && pattern & 8; i++) c->norms[i] = 1;
    q->log_sum_exp = c->norms;
  }
}

static void make_scores(input *in, call *c) {
  ckv_scores *s = &c->scores;
  *s = (ckv_scores){.struct_size = sizeof *s,
                    .batch = c->keys.batch,
                    .num_heads = ckv_score_heads(&c->params, c->keys.num_kv_heads),
                    .kv_len = c->keys.kv_len,
                    .kv_lens = c->of_keys.lens};
  const uint8_t field = take_u8(in);
  int32_t *const small[] = {&s->batch, &s->num_heads, &s->kv_len};
  if (field < 3) *small[field] = (int32_t)take_odd_number(in);
  if (field == 3) s->struct_size = (uint32_t)take_odd_number(in);
  // Lengths are those of the keys: as many as their batch.
  if (s->batch > (c->keys.batch > 0 ? c->keys.batch : 0)) s->kv_lens = NULL;
  const bool known = s->batch >= 0 && s->num_heads >= 0 && s->kv_len >= 0 &&
                     s->batch <= MOST_ELEMENTS && s->num_heads <= MOST_ELEMENTS &&
                     (int64_t)s->batch * s->num_heads <= MOST_ELEMENTS &&
                     (int64_t)s->batch * s->num_heads * s->kv_len <= MOST_ELEMENTS;
  s->count = known ? (int64_t)s->batch * s->num_heads * s->kv_len - (field == 4) : 0;
  if (s->count < 0) s->count = 0;
  s->data = exactly(sizeof(float) * (size_t)s->count, (uint32_t)take_i32(in));
  for (int64_t i = 0; i < s->count && field < 250; i++) s->data[i] = (float)(i * 7919 % 101);
}

static void make_kept(input *in, call *c) {
  ckv_kept *k = &c->kept;
  *k = (ckv_kept){.struct_size = sizeof *k,
                  .batch = c->keys.batch,
                  .num_heads = ckv_kept_heads(&c->params, c->keys.num_kv_heads),
                  .capacity = ckv_kept_capacity(&c->params, c->keys.kv_len)};
  const uint8_t field = take_u8(in);
  int32_t *const small[] = {&k->batch, &k->num_heads, &k->capacity};
  if (field < 3) *small[field] = (int32_t)take_odd_number(in);
  if (field == 3) k->struct_size = (uint32_t)take_odd_number(in);
  const int64_t sets = (int64_t)k->batch * k->num_heads;
  const bool known = k->batch >= 0 && k->num_heads >= 0 && k->capacity >= 0 &&
                     k->batch <= MOST_ELEMENTS && sets <= MOST_ELEMENTS &&
                     sets * k->capacity <= MOST_ELEMENTS;
  const int64_t count = known ? sets * k->capacity : 0;
  k->indices = known ? exactly(sizeof(int32_t) * (size_t)count, 1) : NULL;
  k->lens = known ? exactly(sizeof(int32_t) * (size_t)k->batch, 1) : NULL;
  const int32_t step = take_in(in, 1, 3);
  for (int64_t i = 0; i < count; i++) k->indices[i] = (int32_t)(i % k->capacity) * step;
  for (int32_t b = 0; known && b < k->batch; b++) {
    const int32_t room = k->capacity < c->keys.kv_len / step ? k->capacity : c->keys.kv_len / step;
    k->lens[b] = room > 0 ? take_u8(in) % (room + 1) : 0;
  }
  if (count > 0 && field & 1) k->indices[take_u8(in) % count] = (int32_t)take_odd_number(in);
  if (known && k->batch > 0 && field & 2) k->lens[0] = (int32_t)take_odd_number(in);
}

void call_make(call *c, input *in) {
  memset(c, 0, sizeof *c);
  make_params(in, &c->params);
  size_t key_bytes, value_bytes, dst_bytes;
  c->keys = make_view(in, NULL, &key_bytes);
  c->values = make_view(in, &c->keys, &value_bytes);
  c->dst = make_view(in, &c->keys, &dst_bytes);
  // Half of the calls are whole, so that what comes after the checks is reached.
  for (int32_t faults = take_in(in, 0, 7) - 3; faults > 0; faults--) {
    const int32_t which = take_in(in, 0, 2);
    break_view(in, which == 0 ? &c->keys : which == 1 ? &c->values : &c->dst);
  }
  c->of_keys = back_view(in, &c->keys, key_bytes);
  c->of_values = back_view(in, &c->values, value_bytes);
  c->of_dst = back_view(in, &c->dst, dst_bytes);
  make_queries(in, c);
  make_scores(in, c);
  make_kept(in, c);
  const uint8_t how = take_u8(in);
  if (how & 1) {
    c->values.kv_lens = NULL;
    if (c->values.batch == c->keys.batch) c->values.kv_lens = c->keys.kv_lens;
  }
  if (how & 2) c->dst = c->keys;  // in another place, or the same
  if (how & 4 && c->dst.block_size > 0) c->dst.data = c->keys.data;
  c->layer = (ckv_layer){.struct_size = sizeof c->layer,
                         .queries = how & 8 ? NULL : &c->queries,
                         .keys = &c->keys,
                         .values = how & 16 ? NULL : &c->values};
  // One pool for two views is as large as the smaller one says.
  if (c->dst.data == c->keys.data && c->dst.size_bytes > c->keys.size_bytes) {
    c->dst.size_bytes = c->keys.size_bytes;
  }
}

void call_free(call *c) {
  free_rows(&c->of_keys);
  free_rows(&c->of_values);
  free_rows(&c->of_dst);
  free((void *)(uintptr_t)c->queries.data);
  free(c->norms);
  free(c->scores.data);
  free(c->kept.indices);
  free(c->kept.lens);
}

int call_rows_are_unchanged(const call *c) {
  return memcmp(c->of_keys.data, c->of_keys.before, c->of_keys.bytes) == 0 &&
         memcmp(c->of_values.data, c->of_values.before, c->of_values.bytes) == 0 &&
         memcmp(c->of_dst.data, c->of_dst.before, c->of_dst.bytes) == 0;
}
