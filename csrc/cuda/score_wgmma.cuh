// Window attention on Hopper: some warps bring tiles of keys, pairs of warpgroups multiply and sum them.
//
// Two pairs take tiles of 128 keys in turn. Pass 1: rows of queries x keys, so that a thread sees whole
// rows and the maximum needs no shuffle; pass 2: keys x rows, so that it sees whole keys and the sum over
// rows needs none. While one pair works on exponentials, the tensor cores have the other's product: that
// takes strict turns, else both pairs wait for both products and then both for exponentials.
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
  using Crew = WgmmaCrew<PATH>;
  using Consumer = WgmmaConsumer<STEPS, ROWS, PATH, T>;
  using Producer = WgmmaProducer<STEPS, ROWS, PATH, T>;
  // All of it dynamic: swizzled tiles begin at multiples of 1024 bytes, as shared memory does.
  extern __shared__ __align__(1024) uint8_t memory[];
  using Shared = WgmmaShared<Tiles::STAGES, Tiles::QUERIES>;
  Shared &shared = *reinterpret_cast<Shared *>(memory + Tiles::BYTES);
  const uint32_t queries = ckv_smem(memory);
  const uint32_t keys = queries + Tiles::QUERIES * Tiles::QUERY_BYTES;
  constexpr int CONSUMERS = 128 * Crew::CONSUMERS;
  if (threadIdx.x == 0) {
    for (int i = 0; i < Tiles::STAGES; i++) {
      ckv_mbarrier_init(&shared.full[i], Producer::ARRIVALS);
      ckv_mbarrier_init(&shared.empty[i], 4 * Crew::CONSUMERS);  // their warps
    }
    for (int i = 0; i < Crew::PAIRS; i++)
      ckv_mbarrier_init(&shared.turn[i], 8);  // the other's warps
    for (int i = 0; i < Tiles::QUERIES; i++) ckv_mbarrier_init(&shared.query_empty[i], CONSUMERS);
    for (int i = 0; i < CKV_WGMMA_ITEMS; i++) {
      ckv_mbarrier_init(&shared.item_full[i], 1);
      ckv_mbarrier_init(&shared.norms_full[i], 32);
      ckv_mbarrier_init(&shared.item_empty[i], CONSUMERS + 32 * Crew::LOADERS);  // all who read it
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  ckv_chain();
  __syncthreads();
  const int group = threadIdx.x / 128, lane = threadIdx.x % 32;
  const int other =
      static_cast<int>(threadIdx.x / 32) - 4 * Crew::CONSUMERS;  // who does not multiply
  if (group < Crew::CONSUMERS) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Crew::CONSUMER_REGISTERS));
    Consumer consumer{
        a,   shared, queries, keys, group / 2, group % 2, static_cast<int>(threadIdx.x / 32 % 4),
        lane};
    consumer.run();
    return;
  }
  if (Crew::LOADERS % 4 == 0 && other < Crew::LOADERS) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Crew::LOADER_REGISTERS));
  } else {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Crew::OTHER_REGISTERS));
  }
  if (other < Crew::LOADERS) {
    Producer producer{a, maps, shared, queries, keys, other, lane};
    producer.run();
  } else if (other == Crew::LOADERS) {
    ckv_schedule<ROWS>(a, shared, lane);
  } else if (a.two_passes) {
    ckv_combine_units<ROWS>(a, 4 * Crew::CONSUMERS, Consumer::ROW_SLOTS, lane);
  }
#endif
}

#endif
