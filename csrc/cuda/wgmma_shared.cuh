// What the warpgroups of score_wgmma.cuh share: tiles, barriers and the items ahead.
#ifndef CKV_WGMMA_SHARED_CUH
#define CKV_WGMMA_SHARED_CUH

#include "score_epilogue.cuh"
#include "score_load.cuh"
#include "score_maps.h"

constexpr int CKV_WGMMA_THREADS = 5 * 128;

// How tiles of keys come: by the tensor copy engine, a panel or a page in one copy; by 16-byte
// copies; or converted.
enum class KeyPath { TENSOR, BLOCKS, COPY, CONVERT };

// Who is who in a thread block: warpgroups that multiply and sum, then warps that load, one that
// schedules, and those that make log-sum-exps. The copy engine needs few to tell it, and leaves
// arithmetic to wait for; threads that copy or convert are what is waited for.
template <KeyPath PATH>
struct WgmmaCrew {
  static constexpr bool ENGINE = PATH == KeyPath::TENSOR || PATH == KeyPath::BLOCKS;
  static constexpr int PAIRS = ENGINE ? CKV_WGMMA_PAIRS : 1;
  static constexpr int CONSUMERS = 2 * PAIRS;
  static constexpr int LOADERS = PATH == KeyPath::TENSOR ? 1 : PATH == KeyPath::BLOCKS ? 2 : 8;
  // Registers of a thread, by warpgroup; 96 each at first, and no more in all.
  static constexpr int CONSUMER_REGISTERS = ENGINE ? 104 : 128;
  static constexpr int LOADER_REGISTERS = ENGINE ? 64 : 80;
  static constexpr int OTHER_REGISTERS = ENGINE ? 64 : 56;
};

// STEPS: 16-element steps of a row. ROWS: query rows of a unit.
template <int STEPS, int ROWS>
struct WgmmaTiles {
  static constexpr int PANELS = (STEPS + 3) / 4;
  static constexpr int QUERY_BYTES = ROWS * 128 * PANELS;
  static constexpr int KEY_BYTES = CKV_TILE_KEYS * 128 * PANELS;
  static constexpr int QUERIES = STEPS > 8 && ROWS > 64 ? 1 : 2;
  static constexpr int ROOM = 224 * 1024 - QUERIES * QUERY_BYTES;
  static constexpr int STAGES = ROOM / KEY_BYTES < 8 ? ROOM / KEY_BYTES : 8;
  static_assert(STAGES >= 2, "a consumer holds two tiles");
  static constexpr int BYTES = QUERIES * QUERY_BYTES + STAGES * KEY_BYTES;
};

constexpr int CKV_WGMMA_ITEMS = 2;  // one at work, one ahead: more would hold up pass 2

template <int STAGES, int QUERIES>
struct WgmmaShared {
  uint64_t full[STAGES], empty[STAGES], query_empty[QUERIES];
  uint64_t turn[CKV_WGMMA_PAIRS];  // of a pair to have the tensor cores
  uint64_t item_full[CKV_WGMMA_ITEMS], norms_full[CKV_WGMMA_ITEMS], item_empty[CKV_WGMMA_ITEMS];
  ScoreItem items[CKV_WGMMA_ITEMS];
  float norms[CKV_WGMMA_ITEMS][128];
};

// One warp finds out what the next tickets stand for, and what pass 2 subtracts from logits.
template <int ROWS, typename Shared>
__device__ void ckv_schedule(const ScoreArgs &a, Shared &shared, int lane) {
  uint32_t next = lane == 0 ? atomicAdd(a.ticket, 1u) : 0;
  for (int taken = 0;;) {
    const int32_t ticket = static_cast<int32_t>(__shfl_sync(0xffffffffu, next, 0));
    if (lane == 0) next = atomicAdd(a.ticket, 1u);  // on its way meanwhile
    const bool end = ticket >= a.tickets;
    const ScoreItem item = end ? ScoreItem{} : ckv_score_item(a, ticket);
    if (!end && item.pass == 0) continue;
    const int slot = taken % CKV_WGMMA_ITEMS;
    ckv_mbarrier_wait(&shared.item_empty[slot], (taken / CKV_WGMMA_ITEMS & 1) ^ 1);
    taken++;
    if (lane == 0) {
      shared.items[slot] = item;
      ckv_mbarrier_arrive(&shared.item_full[slot]);
    }
    if (end) return;
    if (item.pass == 2) {
      for (int row = lane; row < ROWS; row += 32) {
        shared.norms[slot][row] = ckv_row_norm(a, item, row);
      }
    }
    ckv_mbarrier_arrive(&shared.norms_full[slot]);
  }
}

#endif
