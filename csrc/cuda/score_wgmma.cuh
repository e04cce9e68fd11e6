// Window attention on Hopper: one warpgroup brings tiles of keys, two multiply and sum them.
//
// Both consumers take every tile of 128 keys. Pass 1: rows of queries x keys, so that a thread sees
// whole rows and the maximum needs no shuffle; pass 2: keys x rows, so that it sees whole keys and
// the sum over rows needs none. A consumer gives the tensor cores the next tile before it works on
// the last one's exponentials.
#ifndef CKV_SCORE_WGMMA_CUH
#define CKV_SCORE_WGMMA_CUH

#include "wgmma_consumer.cuh"
#include "wgmma_producer.cuh"

template <int STEPS, int ROWS, KeyPath PATH, typename T>
__global__ void __launch_bounds__(CKV_WGMMA_THREADS, 1)
    ckv_score_wgmma_kernel(const __grid_constant__ ScoreArgs a,
                           const __grid_constant__ ScoreMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Tiles = WgmmaTiles<STEPS, ROWS>;
  using Producer = WgmmaProducer<STEPS, ROWS, PATH, T>;
  // All of it dynamic: swizzled tiles begin at multiples of 1024 bytes, as shared memory does.
  extern __shared__ __align__(1024) uint8_t memory[];
  using Shared = WgmmaShared<Tiles::STAGES, Tiles::QUERIES>;
  Shared &shared = *reinterpret_cast<Shared *>(memory + Tiles::BYTES);
  const uint32_t queries = ckv_smem(memory);
  const uint32_t keys = queries + Tiles::QUERIES * Tiles::QUERY_BYTES;
  if (threadIdx.x == 0) {
    for (int i = 0; i < Tiles::STAGES; i++) {
      ckv_mbarrier_init(&shared.full[i], Producer::ARRIVALS);
      ckv_mbarrier_init(&shared.empty[i], 8);  // the consumers' warps
    }
    for (int i = 0; i < Tiles::QUERIES; i++) ckv_mbarrier_init(&shared.query_empty[i], 256);
    for (int i = 0; i < CKV_WGMMA_ITEMS; i++) {
      ckv_mbarrier_init(&shared.item_full[i], 1);
      ckv_mbarrier_init(&shared.norms_full[i], 32);
      ckv_mbarrier_init(&shared.item_empty[i], 256 + 32 * Producer::WARPS);  // all who read it
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  ckv_chain();
  __syncthreads();
  const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  // Registers go from those who need few to those who need many; 128 each at first. Who converts needs
  // some more for what it has asked for.
  constexpr bool CONVERTS = PATH == KeyPath::CONVERT;
  if (group < 2) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(CONVERTS ? 192 : 200));
    WgmmaConsumer<STEPS, ROWS, PATH, T> consumer{a, shared, queries, keys, group, warp, lane};
    consumer.run();
  } else if (group == 2) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(CONVERTS ? 72 : 56));
    Producer producer{a, maps, shared, queries, keys, warp, lane};
    producer.run();
  } else {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
    if (warp == 0) {
      ckv_schedule<ROWS>(a, shared, lane);
    } else if (a.two_passes) {
      ckv_combine_units<ROWS>(a, 8, ROWS == 64 ? 2 : 1, lane);
    }
  }
#endif
}

#endif
