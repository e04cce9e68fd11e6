// The warps that load.
#ifndef CKV_WGMMA_PRODUCER_CUH
#define CKV_WGMMA_PRODUCER_CUH

#include "wgmma_shared.cuh"

// Brings queries and keys of one item after the other.
template <int STEPS, int ROWS, KeyPath PATH, typename T>
struct WgmmaProducer {
  using Tiles = WgmmaTiles<STEPS, ROWS>;
  using Shared = WgmmaShared<Tiles::STAGES, Tiles::QUERIES>;
  static constexpr bool ENGINE = WgmmaCrew<PATH>::ENGINE;
  static constexpr int WARPS = WgmmaCrew<PATH>::LOADERS;
  static constexpr int ARRIVALS = ENGINE ? WARPS : 32 * WARPS;
  const ScoreArgs &a;
  const ScoreMaps &maps;
  Shared &shared;
  uint32_t queries, keys;
  int warp, lane;
  int stage = 0, phase = 0;  // of the next tile
  uint64_t policy;           // keys are used once or twice, and then not for long

  __device__ uint32_t key_tile() const { return keys + stage * Tiles::KEY_BYTES; }
  __device__ void next_tile() {
    if (++stage == Tiles::STAGES) stage = 0, phase ^= 1;
  }

  // By the copy engine, a lane a box. Rows past the end hold anything: they are masked, or not looked
  // at. `block` is the block of this lane's box, of which the next tile's is on its way meanwhile.
  __device__ void load_by_tensor(const ScoreItem &item, int32_t first, int32_t n, bool begins,
                                 int slot, int32_t block) {
    const int32_t boxes =
        min(CKV_TILE_KEYS / maps.box_rows, (n - first + maps.box_rows - 1) / maps.box_rows);
    const int32_t box = lane * WARPS + warp;  // warps take turns
    const int32_t t = first + box * maps.box_rows;
    int32_t token = t, outer = item.batch;
    bool found = box < boxes;
    const int32_t wanted = __popc(__ballot_sync(0xffffffffu, found));
    if (a.keys.block_size) {  // a bad entry is not followed
      outer = block;
      token = t % a.keys.block_size;
      found = found && block >= 0;
    }
    const int32_t count = __popc(__ballot_sync(0xffffffffu, found));
    uint64_t *full = &shared.full[stage];
    if (lane == 0) {
      if (count < wanted) atomicOr(a.fault, CKV_FAULT_BLOCK_TABLE);
      begins = begins && warp == 0;
      ckv_mbarrier_expect(
          full, Tiles::PANELS * 128 * count * maps.box_rows + (begins ? Tiles::QUERY_BYTES : 0));
      if (begins) {
        for (int panel = 0; panel < Tiles::PANELS; panel++) {
          ckv_copy_tensor_2d(queries + slot * Tiles::QUERY_BYTES + panel * ROWS * 128,
                             &maps.queries, full, panel * 64, item.unit(a) * ROWS);
        }
      }
    }
    __syncwarp();  // bytes are expected before they come
    if (found && PATH == KeyPath::BLOCKS) {
      ckv_copy_tensor_5d(key_tile() + box * maps.box_rows * 128 * Tiles::PANELS,
                         &maps.keys[item.layer], full, token / 8,
                         outer * maps.block_heads + item.head, policy);
    } else if (found) {
      for (int panel = 0; panel < Tiles::PANELS; panel++) {
        ckv_copy_tensor_4d(key_tile() + panel * CKV_TILE_KEYS * 128 + box * maps.box_rows * 128,
                           &maps.keys[item.layer], full, panel * 64, token, item.head, outer,
                           policy);
      }
    }
    if (lane == 0) ckv_mbarrier_arrive(full);
  }

  // The block of this lane's box of the tile at `first`, -1 where there is none.
  __device__ int32_t block_of_box(const ScoreItem &item, int32_t first, int32_t last) const {
    const int32_t t = first + (lane * WARPS + warp) * maps.box_rows;
    const bool inside = ENGINE && a.keys.block_size && t < last && t < first + CKV_TILE_KEYS;
    return inside ? block_of(item, t) : -1;
  }

  __device__ int32_t block_of(const ScoreItem &item, int32_t t) const {
    const int32_t index = t / a.keys.block_size;
    const int32_t block = index < a.keys.max_blocks
                              ? __ldg(a.keys.block_table +
                                      static_cast<int64_t>(item.batch) * a.keys.max_blocks + index)
                              : -1;
    return static_cast<uint32_t>(block) < static_cast<uint32_t>(a.keys.num_blocks) ? block : -1;
  }

  // By threads. Consumers hear of the tile when it has come, not when it was asked for.
  __device__ void load_by_threads(const ScoreItem &item, int32_t first, int32_t n, bool begins,
                                  int slot) {
    if (begins) {
      ckv_load_queries<STEPS, ROWS, WARPS, T>(a, item, queries + slot * Tiles::QUERY_BYTES, warp,
                                              lane);
    }
    ckv_load_keys<STEPS, WARPS, PATH == KeyPath::COPY, T>(a, item, first, n, key_tile(), warp,
                                                          lane);
    if (PATH == KeyPath::COPY) {
      ckv_arrive_copied(&shared.full[stage]);
    } else {
      ckv_copy_commit();  // the queries
      ckv_copy_wait<0>();
      ckv_fence_async();
      ckv_mbarrier_arrive(&shared.full[stage]);
    }
  }

  __device__ void run() {
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    for (int taken = 0;; taken++) {
      const int at = taken % CKV_WGMMA_ITEMS;
      ckv_mbarrier_wait(&shared.item_full[at], taken / CKV_WGMMA_ITEMS & 1);
      const ScoreItem item = shared.items[at];
      ckv_mbarrier_arrive(&shared.item_empty[at]);
      if (item.pass == 0) return;
      const int slot = taken % Tiles::QUERIES;
      ckv_mbarrier_wait(&shared.query_empty[slot], (taken / Tiles::QUERIES & 1) ^ 1);
      const int32_t n = a.keys.len(item.batch);
      const int32_t first = item.item * a.item_tiles * CKV_TILE_KEYS;
      const int32_t last =
          min(item.pass == 1 ? n : n - a.window, first + a.item_tiles * CKV_TILE_KEYS);
      int32_t block = block_of_box(item, first, n);
      for (int32_t t = first; t < last; t += CKV_TILE_KEYS) {
        const int32_t next = block_of_box(item, t + CKV_TILE_KEYS, n);
        ckv_mbarrier_wait(&shared.empty[stage], phase ^ 1);
        if (ENGINE) {
          load_by_tensor(item, t, n, t == first, slot, block);
        } else {
          load_by_threads(item, t, n, t == first, slot);
        }
        next_tile();
        block = next;
      }
    }
  }
};

#endif
