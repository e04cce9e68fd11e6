// compact: every layout against a plain model, bit for bit, in place and out of place.
#include <string.h>

#include "chunkkv.h"
#include "compact/copy.h"
#include "test.h"

#define MAX_BYTES (1 << 23)
#define MAX_LEN 2400
#define MAX_BLOCKS (3 * MAX_LEN + 3)

static unsigned char original[MAX_BYTES], moved[MAX_BYTES], destination[MAX_BYTES];

typedef struct {
  ckv_kv_view view;
  int32_t lens[3];
  int32_t table[MAX_BLOCKS];
} layout;

// Long sequences take the streaming copies and are shared among threads; short ones do not.
static void random_shape(layout *l, int32_t longest) {
  ckv_kv_view *v = &l->view;
  memset(v, 0, sizeof *v);
  v->struct_size = sizeof *v;
  v->dtype = test_int(CKV_F32, CKV_F8_E4M3);
  v->head_dim = 32 * test_int(1, 2);
  v->batch = test_int(1, 3);
  v->num_kv_heads = test_int(1, 4);
  v->kv_len = test_int(longest / 2, longest);
  for (int32_t b = 0; b < v->batch; b++) l->lens[b] = test_int(0, v->kv_len);
  l->lens[test_int(0, v->batch - 1)] = v->kv_len;
  v->kv_lens = l->lens;
}

// A random layout of batch x heads x tokens rows: contiguous, strided with gaps, or paged.
static void random_layout(layout *l) {
  ckv_kv_view *v = &l->view;
  const int64_t row = ckv_row_bytes(v->dtype, v->head_dim), gap = test_int(0, 1) * 2;
  const int token_major = test_int(0, 1);
  v->block_size = test_int(0, 2) ? test_int(1, 20) : 0;
  const int32_t inner = v->block_size ? v->block_size : v->kv_len;
  v->stride_head = token_major ? row + gap : (row + gap) * inner;
  v->stride_token = token_major ? (row + gap) * v->num_kv_heads : row + gap;
  const int64_t outer = (row + gap) * v->num_kv_heads * inner;
  if (v->block_size) {
    v->max_blocks = (v->kv_len + v->block_size - 1) / v->block_size;
    v->num_blocks = v->batch * v->max_blocks + test_int(0, 3);
    v->stride_block = outer;
    // A random permutation deals every block at most once; now and then neighbours stay together.
    const int neighbours = test_int(0, 2) == 0;
    static int32_t deck[MAX_BLOCKS];
    for (int32_t i = 0; i < v->num_blocks; i++) deck[i] = i;
    for (int32_t i = v->num_blocks - 1; !neighbours && i > 0; i--) {
      const int32_t j = test_int(0, i), swap = deck[i];
      deck[i] = deck[j];
      deck[j] = swap;
    }
    memcpy(l->table, deck, sizeof(int32_t) * (size_t)(v->batch * v->max_blocks));
    v->block_table = l->table;
    v->size_bytes = outer * v->num_blocks;
  } else {
    v->stride_batch = outer;
    v->size_bytes = outer * v->batch;
  }
}

static int64_t offset_of(const ckv_kv_view *v, int32_t b, int32_t h, int32_t t) {
  if (!v->block_size) return b * v->stride_batch + h * v->stride_head + t * v->stride_token;
  const int32_t block = v->block_table[b * v->max_blocks + t / v->block_size];
  return block * v->stride_block + h * v->stride_head + t % v->block_size * v->stride_token;
}

// Single tokens, or runs of `chunk`.
static void random_kept(const ckv_kv_view *v, ckv_kept *kept, int32_t chunk) {
  for (int32_t b = 0; b < v->batch; b++) {
    const int32_t n = v->kv_lens[b];
    kept->lens[b] = test_int(0, n);
    for (int32_t h = 0; h < kept->num_heads; h++) {
      int32_t *out = kept->indices + ((int64_t)b * kept->num_heads + h) * kept->capacity;
      int32_t need = kept->lens[b];
      for (int32_t t = 0, run = 0; t < n; t++) {
        if (run == 0 && test_int(1, n - t) <= need) run = chunk;
        if (need > 0 && (run > 0 || n - t <= need)) *out++ = t, need--;
        if (run > 0) run--;
      }
    }
  }
}

// One run at every alignment and at every overlap that rows moved down can have.
static void test_copy(void) {
  int same = 1;
  for (int32_t bytes = 1; bytes <= 300; bytes += test_int(1, 7)) {
    for (int32_t to = 0; to < 70; to++) {
      const int32_t gap = test_int(1, 140), stream = test_int(0, 1);
      for (int32_t i = 0; i < 600; i++) moved[i] = original[i] = (unsigned char)test_random();
      ckv_run_group ahead = {0};
      ckv_group_add(&ahead, (ckv_run){NULL, (const char *)original, bytes});
      char *base = (char *)moved;
      ckv_copy_run((ckv_run){base + to, base + to + gap, bytes}, stream, &ahead);
      ckv_copy_fence();
      memmove(original + to, original + to + gap, (size_t)bytes);
      same &= memcmp(moved, original, 600) == 0;
    }
  }
  CHECK(same, "one run, forwards");
}

// A pool of fused pages [block, head, token, K | V]: keys at its start, values a row further.
static void fused_pool(layout *l, int32_t num_blocks) {
  ckv_kv_view *v = &l->view;
  const int64_t row = ckv_row_bytes(v->dtype, v->head_dim);
  v->num_blocks = num_blocks;
  v->max_blocks = (v->kv_len + v->block_size - 1) / v->block_size;
  v->stride_token = 2 * row;
  v->stride_head = v->block_size * v->stride_token;
  v->stride_block = v->num_kv_heads * v->stride_head;
  v->size_bytes = num_blocks * v->stride_block;
  v->block_table = l->table;
  v->kv_lens = l->lens;
  v->data = moved;
}

static int32_t blocks_of(const ckv_kv_view *v, int32_t b) {
  return (v->kv_lens[b] + v->block_size - 1) / v->block_size;
}

// Keys and values of fused pages, in place or out to other blocks of the same pool; all bytes of
// the pool are compared with the rows moved one by one.
static void test_pool(ckv_context *context, int round) {
  enum { LONGEST = 600 };  // as many as MAX_BYTES has room for
  static int32_t indices[3 * 4 * LONGEST], lens[3];
  static layout from, to;
  random_shape(&from, round % 16 == 0 ? LONGEST : 130);
  from.view.block_size = test_int(1, 20);
  const int32_t most = (from.view.kv_len + from.view.block_size - 1) / from.view.block_size;
  const int32_t dealt = from.view.batch * most, num_blocks = 2 * dealt + test_int(0, 3);
  fused_pool(&from, num_blocks);
  ckv_kv_view *v = &from.view;
  static int32_t deck[MAX_BLOCKS];
  for (int32_t i = 0; i < num_blocks; i++) {
    const int32_t j = test_int(0, i);
    deck[i] = deck[j];
    deck[j] = i;
  }
  memcpy(from.table, deck, sizeof(int32_t) * (size_t)dealt);
  ckv_kept kept = {sizeof kept, v->batch, test_int(0, 1) ? 1 : v->num_kv_heads,
                   LONGEST,     indices,  lens};
  random_kept(v, &kept, test_int(0, 1) ? 1 : test_int(2, 20));
  const int out = test_int(0, 1);
  to = from;
  to.view.block_table = to.table;
  to.view.kv_lens = to.lens;
  if (out) {
    memcpy(to.table, deck + dealt, sizeof(int32_t) * (size_t)dealt);
    for (int32_t b = 0; b < v->batch; b++) to.lens[b] = lens[b];
    // What is copied out may be shared: the sequences begin with the same block.
    for (int32_t b = 1; b < v->batch; b++) from.table[b * most] = from.table[0];
  }
  for (int64_t i = 0; i < v->size_bytes; i++) original[i] = (unsigned char)test_random();
  memcpy(moved, original, (size_t)v->size_bytes);
  memcpy(destination, original, (size_t)v->size_bytes);

  const int64_t row = ckv_row_bytes(v->dtype, v->head_dim);
  for (int part = 0; part < 2; part++) {
    ckv_kv_view source = *v, target = to.view;
    source.data = target.data = moved + part * row;
    source.size_bytes = target.size_bytes = v->size_bytes - part * row;
    CHECK(ckv_compact(context, &source, out ? &target : NULL, &kept) == CKV_OK, "%s",
          ckv_context_error(context));
    for (int32_t b = 0; b < v->batch; b++) {
      for (int32_t h = 0; h < v->num_kv_heads; h++) {
        const int32_t set = b * kept.num_heads + (kept.num_heads > 1 ? h : 0);
        for (int32_t i = 0; i < lens[b]; i++) {
          const int32_t index = indices[set * kept.capacity + i];
          memcpy(destination + part * row + offset_of(out ? &to.view : v, b, h, i),
                 original + part * row + offset_of(v, b, h, index), (size_t)row);
        }
      }
    }
  }
  CHECK(memcmp(moved, destination, (size_t)v->size_bytes) == 0, "%s in a pool, round %d",
        out ? "out" : "in place", round);

  // One block on both sides: refused, whoever reads it, and no byte moves.
  const int32_t reader = test_int(0, v->batch - 1), writer = test_int(0, v->batch - 1);
  if (!out || blocks_of(v, reader) == 0 || blocks_of(&to.view, writer) == 0) return;
  const int32_t read = from.table[reader * most + test_int(0, blocks_of(v, reader) - 1)];
  to.table[writer * most + test_int(0, blocks_of(&to.view, writer) - 1)] = read;
  CHECK(ckv_compact(context, v, &to.view, &kept) == CKV_ERROR_INVALID_ARGUMENT, "round %d", round);
  CHECK(memcmp(moved, destination, (size_t)v->size_bytes) == 0, "refused, round %d", round);
}

int main(void) {
  test_begin("compact");
  static int32_t indices[3 * 4 * MAX_LEN], lens[3];
  for (int round = 0; round < 800; round++) {
    ckv_context_params params;
    ckv_context_default_params(&params);
    params.num_threads = test_int(1, 3);
    ckv_context *context = NULL;
    CHECK(ckv_context_create(&params, &context) == CKV_OK, "create");
    static layout l, d;
    random_shape(&l, round % 16 == 0 ? MAX_LEN : 130);
    random_layout(&l);
    ckv_kv_view *v = &l.view;
    for (int64_t i = 0; i < v->size_bytes; i++) original[i] = (unsigned char)test_random();
    memcpy(moved, original, (size_t)v->size_bytes);
    v->data = moved;
    ckv_kept kept = {sizeof kept, v->batch, test_int(0, 1) ? 1 : v->num_kv_heads,
                     MAX_LEN,     indices,  lens};
    random_kept(v, &kept, test_int(0, 1) ? 1 : test_int(2, 20));
    const int64_t row = ckv_row_bytes(v->dtype, v->head_dim);

    // Out of place into another layout of the same rows.
    d = l;
    d.view.kv_lens = d.lens;
    random_layout(&d);
    d.view.data = destination;
    memset(destination, 0xa5, (size_t)d.view.size_bytes);
    CHECK(ckv_compact(context, v, &d.view, &kept) == CKV_OK, "%s", ckv_context_error(context));
    CHECK(memcmp(moved, original, (size_t)v->size_bytes) == 0, "the source is only read");

    CHECK(ckv_compact(context, v, NULL, &kept) == CKV_OK, "%s", ckv_context_error(context));
    int same = 1, same_out = 1;
    static unsigned char touched[MAX_BYTES];
    memset(touched, 0, (size_t)v->size_bytes);
    for (int32_t b = 0; b < v->batch; b++) {
      for (int32_t h = 0; h < v->num_kv_heads; h++) {
        const int32_t *row_indices =
            indices + ((int64_t)b * kept.num_heads + (kept.num_heads > 1 ? h : 0)) * kept.capacity;
        for (int32_t i = 0; i < lens[b]; i++) {
          const unsigned char *from = original + offset_of(v, b, h, row_indices[i]);
          same &= memcmp(from, moved + offset_of(v, b, h, i), (size_t)row) == 0;
          same_out &= memcmp(from, destination + offset_of(&d.view, b, h, i), (size_t)row) == 0;
          memset(touched + offset_of(v, b, h, i), 1, (size_t)row);
        }
      }
    }
    CHECK(same, "in place, round %d", round);
    CHECK(same_out, "out of place, round %d", round);
    int outside = 1;
    for (int64_t i = 0; i < v->size_bytes; i++) outside &= touched[i] || moved[i] == original[i];
    CHECK(outside, "bytes outside the first rows stay, round %d", round);
    test_pool(context, round);
    ckv_context_free(context);
  }
  test_copy();
  return test_end();
}
