// compact on the device: bit for bit what moving row by row gives, and no other byte touched.
#ifndef CKV_CUDA_TEST_COMPACT_CASES_H
#define CKV_CUDA_TEST_COMPACT_CASES_H

#include "layouts.h"
#include "select_cases.h"

enum keep { KEEP_ALL, KEEP_NONE, KEEP_FIRST, KEEP_LAST, KEEP_TOKENS, KEEP_CHUNKS, KEEPS };

static void random_bytes(void *memory, int64_t bytes) {
  uint64_t *words = memory;
  for (int64_t i = 0; i < bytes / 8; i++) words[i] = test_random();
  for (int64_t i = bytes / 8 * 8; i < bytes; i++) ((unsigned char *)memory)[i] = (unsigned char)i;
}

// Indices of one set: `count` of n tokens, single ones or runs of ten.
static void random_set(int32_t *out, int32_t n, int32_t count, enum keep keep) {
  const int32_t run_length = keep == KEEP_CHUNKS ? 10 : 1;
  const int32_t first = keep == KEEP_LAST ? n - count : 0;
  for (int32_t i = 0; i < count && keep < KEEP_TOKENS; i++) out[i] = first + i;
  int32_t need = keep < KEEP_TOKENS ? 0 : count, run = 0;
  for (int32_t t = 0; t < n && need > 0; t++) {
    if (run == 0 && test_int(1, n - t) * run_length <= need) run = run_length;
    if (run > 0 || n - t <= need) *out++ = t, need--;
    if (run > 0) run--;
  }
}

static ckv_kept random_kept(const ckv_kv_view *v, enum keep keep) {
  const bool per_head = v->num_kv_heads > 1 && test_int(0, 1);
  const ckv_kept kept =
      host_kept(v->batch, per_head ? v->num_kv_heads : 1, v->kv_len + test_int(0, 1) * 3);
  for (int32_t b = 0; b < v->batch; b++) {
    const int32_t n = len_of(v, b);
    kept.lens[b] = keep == KEEP_ALL ? n : keep == KEEP_NONE ? 0 : test_int(0, n);
    for (int32_t h = 0; h < kept.num_heads; h++) {
      int32_t *out = kept.indices + ((int64_t)b * kept.num_heads + h) * kept.capacity;
      random_set(out, n, kept.lens[b], keep);
    }
  }
  return kept;
}

static void move_rows(const ckv_kv_view *src, const char *from, const ckv_kv_view *dst, char *to,
                      const ckv_kept *kept) {
  const int64_t row = ckv_row_bytes(src->dtype, src->head_dim);
  for (int64_t r = 0; r < (int64_t)src->batch * src->num_kv_heads; r++) {
    const int32_t b = (int32_t)(r / src->num_kv_heads), h = (int32_t)(r % src->num_kv_heads);
    const int32_t set = b * kept->num_heads + (kept->num_heads > 1 ? h : 0);
    for (int32_t i = 0; i < kept->lens[b]; i++) {
      const int32_t t = kept->indices[(int64_t)set * kept->capacity + i];
      memcpy(to + row_offset(dst, b, h, i), from + row_offset(src, b, h, t), (size_t)row);
    }
  }
}

static ckv_kv_view random_view(int32_t longest, enum layout *layout) {
  // Row sizes: 34- and 18-byte blocks, 80 bytes, odd bytes, and multiples of 16.
  static const int32_t DIMS[] = {40, 64, 80, 128, 32, 96, 256, 33};
  ckv_kv_view v = {.struct_size = sizeof v, .dtype = test_int(CKV_F32, CKV_F8_E4M3)};
  do {
    v.head_dim = DIMS[test_int(0, 7)];
  } while (ckv_row_bytes(v.dtype, v.head_dim) < 0);
  v.num_kv_heads = test_int(1, 8);
  v.batch = test_int(0, 1) ? 1 : test_int(2, 4);
  const int32_t lengths[] = {1, 31, 64, 1000, 4097};
  v.kv_len = test_int(0, 2) ? lengths[test_int(0, 4)] : test_int(1, longest);
  v.kv_lens = random_lens(v.batch, v.kv_len);
  *layout = (enum layout)test_int(0, LAYOUTS - 1);
  layout_view(&v, *layout, test_int(0, 3));
  return v;
}

// Other memory, of another layout.
static ckv_kv_view destination_of(const ckv_kv_view *src, const ckv_kept *kept) {
  ckv_kv_view dst = *src;
  int32_t *lens = host_alloc(src->batch * (int64_t)sizeof(int32_t));
  for (int32_t b = 0; b < src->batch; b++) {
    lens[b] = kept->lens[b] + test_int(0, src->kv_len - kept->lens[b]);
  }
  dst.kv_lens = lens;
  layout_view(&dst, (enum layout)test_int(0, LAYOUTS - 1), test_int(0, 3));
  return dst;
}

static void compare_bytes(const char *want, const void *on_device, int64_t bytes,
                          const char *text) {
  char *found = host_alloc(bytes);
  download(found, on_device, bytes);
  int64_t at = 0;
  if (memcmp(want, found, (size_t)bytes) == 0) at = bytes;
  while (at < bytes && want[at] == found[at]) at++;
  CHECK(at == bytes, "%s: byte %lld of %lld differs", text, (long long)at, (long long)bytes);
  free(found);
}

static void free_view(const ckv_kv_view *v) {
  free((void *)(uintptr_t)v->kv_lens);
  free((void *)(uintptr_t)v->block_table);
}

static void check_compaction(ckv_kv_view src, enum layout layout, bool in_place) {
  const enum keep keep = (enum keep)test_int(0, KEEPS - 1);
  const ckv_kept kept = random_kept(&src, keep);
  const ckv_kv_view dst = in_place ? src : destination_of(&src, &kept);
  char text[256];
  snprintf(text, sizeof text, "%s, %s, dim %d, n %d, batch %d%s, heads %d, sets %d, keep %d, %s",
           in_place ? "in place" : "out of place", ckv_dtype_name(src.dtype), src.head_dim,
           src.kv_len, src.batch, src.kv_lens ? " ragged" : "", src.num_kv_heads, kept.num_heads,
           keep, LAYOUT_NAMES[layout]);

  char *before = host_alloc(src.size_bytes), *after = host_alloc(dst.size_bytes);
  random_bytes(before, src.size_bytes);
  memset(after, 0xff, (size_t)dst.size_bytes);
  if (in_place) memcpy(after, before, (size_t)src.size_bytes);
  move_rows(&src, before, &dst, after, &kept);

  src.data = before;
  const ckv_kv_view from = device_kv(&src);
  ckv_kv_view to = from;
  if (!in_place) {
    ckv_kv_view target = dst;
    char *poison = host_alloc(dst.size_bytes);
    memset(poison, 0xff, (size_t)dst.size_bytes);
    target.data = poison;
    to = device_kv(&target);
    free(poison);
  }
  const ckv_kept indices = device_kept(&kept);
  upload_kept(&indices, &kept);
  const ckv_kv_view *target = in_place ? (test_int(0, 1) ? NULL : &from) : &to;
  const ckv_status status = finished(ckv_compact(device, &from, target, &indices));
  CHECK(status == CKV_OK, "%s: %s", text, ckv_context_error(device));
  compare_bytes(after, to.data, dst.size_bytes, text);
  if (!in_place) compare_bytes(before, from.data, src.size_bytes, text);
  device_reset(text);
  free(before);
  free(after);
  free_kept(&kept);
  free_view(&src);
  if (!in_place) free_view(&dst);
}

static void check_random(int32_t longest, bool in_place) {
  enum layout layout;
  const ckv_kv_view src = random_view(longest, &layout);
  check_compaction(src, layout, in_place);
}

// More heads than one launch has flags for.
static void check_many_heads(bool in_place) {
  ckv_kv_view v = {.struct_size = sizeof v, .dtype = CKV_F8_E4M3, .head_dim = test_int(1, 3)};
  v.num_kv_heads = 8;
  v.batch = test_int(33000, 70000);
  v.kv_len = test_int(1, 5);
  v.kv_lens = random_lens(v.batch, v.kv_len);
  layout_view(&v, ROWS, 0);
  check_compaction(v, ROWS, in_place);
}

static void test_compact(bool quick) {
  for (int32_t in_place = 0; in_place < 2; in_place++) {
    const int before = test_failed;
    for (int32_t round = 0; round < (quick ? 40 : 400); round++) {
      check_random(quick ? 3000 : 20000, in_place);
    }
    for (int32_t round = 0; round < (quick ? 1 : 6); round++) check_many_heads(in_place);
    printf("compact %s: %d failed\n", in_place ? "in place" : "out of place", test_failed - before);
  }
}

#endif
