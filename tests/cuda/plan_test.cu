// How launches of the one pass over the keys are cut up: host code, looked at without a GPU.
#include <stdlib.h>

#include "../../csrc/cuda/chunk_plan.h"
#include "../csrc/test.h"

static const ScoreDevice DEVICE = {132, true};

struct Shape {
  ckv_params params;
  ckv_kv_view keys;
  ckv_query_view queries;
  ckv_layer layer;
};

static void random_shape(Shape *s) {
  static const int32_t CHUNKS[] = {8, 10, 10, 16, 20, 40, 64, 100, 160, 512, 11, 520};
  static const int32_t DIMS[] = {40, 64, 80, 96, 128};
  *s = {};
  s->params.method = CKV_METHOD_CHUNKKV;
  s->params.window = test_int(1, 64);
  s->params.chunk_size = CHUNKS[test_int(0, 11)];
  s->params.chunk_reduce = test_int(0, 1) ? CKV_REDUCE_SUM : CKV_REDUCE_MEAN;
  ckv_kv_view &k = s->keys;
  k.dtype = test_int(0, 1) ? CKV_F16 : CKV_BF16;
  k.batch = test_int(1, 16);
  k.num_kv_heads = 1 << test_int(0, 5);
  k.head_dim = DIMS[test_int(0, 4)];
  k.kv_len = test_int(0, 2) ? test_int(1, 200000) : test_int(1, 300);
  k.stride_token = 2 * k.head_dim;
  k.stride_head = k.stride_token * k.kv_len;
  k.stride_batch = k.stride_head * k.num_kv_heads;
  s->queries.num_q_heads = k.num_kv_heads * test_int(1, 9);
  s->queries.dtype = test_int(0, 1) ? k.dtype : CKV_F32;
  s->queries.window = s->params.window;
  s->layer.queries = &s->queries;
  s->layer.keys = &s->keys;
}

// A block with no tile, a unit that does not begin in its first block, or one that meets more blocks than it
// has slots for; -1: none.
static int32_t bad_block(const ChunkArgs &a, int64_t units) {
  int64_t unit = 0;
  for (int32_t block = 0; block < a.blocks; block++) {
    const int32_t begin = a.begin_of(block), end = a.begin_of(block + 1);
    if (begin >= end) return block;
    for (; unit < units && unit * a.of_unit() < end; unit++) {
      if (a.first_block(static_cast<int32_t>(unit)) != block) return block;
    }
    const int32_t met = block - a.first_block((end - 1) / a.of_unit()) + 1;
    if (CKV_CHUNK_PAIRS * met > a.slots) return block;
  }
  return -1;
}

// Whatever number of layers a launch has, its maxima and sums fit where they go, and its tiles have all
// chunks.
static void check_launches(const ChunkPlan &plan, int32_t chunk_size) {
  for (int32_t layers = 1; layers <= plan.layers; layers++) {
    ChunkArgs a;
    ckv_chunk_cut(plan, DEVICE, layers, &a);
    const int64_t units = static_cast<int64_t>(a.score.num_heads) * a.score.row_blocks;
    const int64_t rows = units * CKV_CHUNK_ROWS;
    CHECK(rows * a.slots * 8 <= plan.log_sum_exp - plan.maxima, "%d layers: maxima", layers);
    CHECK(rows * a.tiles * 64 <= plan.bases - plan.sums, "%d layers: sums", layers);
    CHECK(rows * a.tiles * 4 <= plan.end - plan.bases, "%d layers: bases", layers);
    CHECK(a.blocks >= 1 && a.blocks <= 132, "%d layers: %d blocks", layers, a.blocks);
    CHECK(a.begin_of(0) == 0 && a.begin_of(a.blocks) == units * a.of_unit(),
          "%d layers: not all tiles", layers);
    CHECK(bad_block(a, units) < 0, "%d layers: block %d of %d", layers, bad_block(a, units),
          a.blocks);
    const int64_t chunks = static_cast<int64_t>(a.tiles) / a.parts * CKV_TILE_CHUNKS;
    CHECK(a.tiles % a.parts == 0 && chunks * chunk_size >= a.scored, "%d layers: %lld chunks",
          layers, static_cast<long long>(chunks));
  }
}

// Queries are read where they are if the copy engine takes them so in every layer.
static void check_own_queries() {
  Shape s;
  s = {};
  s.params.method = CKV_METHOD_CHUNKKV;
  s.params.window = 32;
  s.params.chunk_size = 10;
  s.keys.dtype = CKV_BF16;
  s.keys.batch = 2;
  s.keys.num_kv_heads = 8;
  s.keys.head_dim = 128;
  s.keys.kv_len = 4096;
  s.keys.stride_token = 256;
  s.keys.stride_head = 256 * 4096;
  s.keys.stride_batch = 8 * s.keys.stride_head;
  ckv_query_view other = {};
  other.dtype = CKV_BF16;
  other.batch = 2;
  other.num_q_heads = 32;
  other.window = 32;
  other.head_dim = 128;
  other.stride_row = 256;
  other.stride_head = 32 * 256;
  other.stride_batch = 32 * other.stride_head;
  const ckv_query_view good = other;
  s.layer.keys = &s.keys;
  s.layer.queries = &s.queries;
  const ckv_layer layers[2] = {s.layer, {sizeof(ckv_layer), 0, &other, &s.keys, nullptr}};
  const auto own = [&](ckv_query_view first) {
    s.queries = first;
    s.params.window = first.window;
    ChunkPlan plan;
    return ckv_chunk_plan(DEVICE, &s.params, layers, 2, &plan) ? plan.own_queries : -1;
  };
  CHECK(own(good) == 1, "aligned queries of the keys' type are packed");
  ckv_query_view q = good;
  q.dtype = CKV_F16;
  CHECK(own(q) == 0, "queries of another type are not packed");
  q = good;
  q.window = 24;
  CHECK(own(q) == 0, "a window that does not divide a unit is not packed");
  q.window = 64;
  CHECK(own(q) == 1, "a window of half a unit is packed");
  int64_t ckv_query_view::*const strides[] = {
      &ckv_query_view::stride_row, &ckv_query_view::stride_head, &ckv_query_view::stride_batch};
  for (const auto stride : strides) {
    q = good;
    q.*stride += 8;
    CHECK(own(q) == 0, "queries with a stride of %lld are not packed",
          static_cast<long long>(q.*stride));
  }
  other.data = reinterpret_cast<const void *>(8);
  CHECK(own(good) == 0, "queries of a second layer that are not aligned are not packed");
}

static bool check_shape() {
  Shape s;
  random_shape(&s);
  ChunkPlan plan;
  if (!ckv_chunk_plan(DEVICE, &s.params, &s.layer, 1, &plan)) return false;
  const int32_t c = s.params.chunk_size, scored = s.keys.kv_len - s.params.window;
  CHECK((scored + c - 1) / c * c <= s.keys.kv_len, "the last of %d chunks ends past the keys", c);
  const int32_t layers = test_int(1, 80);
  ckv_chunk_room(DEVICE, layers, CKV_CHUNK_LAYERS, &plan);
  check_launches(plan, c);
  CHECK(plan.end - plan.sums <= (128 << 20) + 512, "sums of %lld bytes",
        static_cast<long long>(plan.end - plan.sums));
  const int64_t best = plan.end;
  // Fewer layers a launch, or in all, never need more.
  for (int32_t most = plan.layers; most >= 1; most--) {
    const int64_t before = plan.end;
    ckv_chunk_room(DEVICE, layers, most, &plan);
    CHECK(plan.end <= before && plan.layers <= most, "%d a launch need more than %d", most,
          most + 1);
  }
  check_launches(plan, c);
  if (layers > 1) ckv_chunk_room(DEVICE, layers - 1, CKV_CHUNK_LAYERS, &plan);
  CHECK(plan.end <= best, "%d layers need more than %d", layers - 1, layers);
  return true;
}

int main() {
  test_begin("plan");
  int accepted = 0;
  for (int i = 0; i < 5000; i++) accepted += check_shape();
  check_own_queries();
  CHECK(accepted > 500, "%d of 5000 shapes take one pass", accepted);
  return test_end();
}
