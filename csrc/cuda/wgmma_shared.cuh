// What the warpgroups of score_wgmma.cuh share: tiles, barriers and the items ahead.
#ifndef CKV_WGMMA_SHARED_CUH
#define CKV_WGMMA_SHARED_CUH

#include "score_epilogue.cuh"
#include "score_load.cuh"
#include "score_maps.h"

// Two warpgroups that multiply, one that loads, one that schedules and makes log-sum-exps.
constexpr int CKV_WGMMA_THREADS = 4 * 128;

// How tiles of keys come: by the tensor copy engine, a panel or a page in one copy; by 16-byte
// copies; or converted.
enum class KeyPath { TENSOR, BLOCKS, COPY, CONVERT };

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
