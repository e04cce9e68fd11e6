/**
 * A paged KV cache for one's own engine: vLLM's blocks, block tables and prefix caching, and
 * compaction that gives blocks back.
 *
 * @example Two sequences, one prefix
 * ```ts
 * import { PagedKvCache } from "chunkkv/paged";
 * import { assertEquals } from "@std/assert";
 *
 * using cache = new PagedKvCache({ numLayers: 2, numKvHeads: 1, headDim: 8, numBlocks: 10 });
 * using one = cache.createSequence();
 * const { positions, slotMapping } = one.append([1, 2, 3]);
 * assertEquals([...positions], [0, 1, 2]);
 * assertEquals([...slotMapping], [0, 1, 2]);
 *
 * using two = one.fork();
 * assertEquals(two.blocks, one.blocks);
 * two.append([4]); // writes a copy of the block: shared ones are never written
 * assertEquals([one.blocks[0], two.blocks[0]], [0, 1]);
 * ```
 *
 * @module
 */
export { ChunkKvError, type ChunkKvErrorCode } from "../../ffi/status.ts";
export { PagedBatch } from "./batch.ts";
export { BlockPool, type PoolStats } from "./block_pool.ts";
export { PagedKvCache, type PagedKvCacheOptions, type SequenceOptions } from "./cache.ts";
export type {
  PagedCompactionReport,
  PagedCompactOptions,
  PagedKeptOptions,
  PagedSelectOptions,
  PagedTargetOptions,
} from "./compaction.ts";
export { OutOfBlocksError } from "./errors.ts";
export type { LayerMemory, LayerPages, PageLayout, PageOptions, Tables } from "./pages.ts";
export { rowOffset, type WriteOptions } from "./rows.ts";
export { type AppendedSlots, PagedSequence } from "./sequence.ts";
