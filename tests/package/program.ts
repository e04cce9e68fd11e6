// What a user's program does first: it runs in a folder where the packages are installed.
import {
  chunkKv,
  Compressor,
  contiguousKv,
  libraryPath,
  libraryVersion,
  queryView,
} from "@chunkkv/chunkkv";
import { llamaEngine } from "@chunkkv/chunkkv/llama-cpp";
import { PagedKvCache } from "@chunkkv/chunkkv/paged";

const shape = { numKvHeads: 1, kvLen: 1000, headDim: 64 };
const rows = new Float32Array(1000 * 64);
// The queries ask for the tokens from 500 to 509 alone.
rows.fill(1, 500 * 64, 510 * 64);
const keys = contiguousKv({ data: rows, ...shape });
const values = contiguousKv({ data: rows.slice(), ...shape });
const queries = queryView({
  data: new Float32Array(4 * 32 * 64).fill(1),
  numQHeads: 4,
  window: 32,
  headDim: 64,
});

using compressor = new Compressor();
const scores = compressor.score({ queries, keys, method: chunkKv() });
const kept = compressor.select({ queries, keys, method: chunkKv(), keep: 0.1 });
compressor.compact({ keys, values, kept });
const { release } = await llamaEngine(Deno.args[0] ? { libraryPath: Deno.args[0] } : {});
console.log(JSON.stringify({
  version: libraryVersion(),
  path: libraryPath(),
  scores: scores.data.length,
  kept: [...kept.at(0)],
  rows: rows.findIndex((value) => value === 1) / 64,
  release,
  paged: typeof PagedKvCache,
}));
