/**
 * Makes `tests/golden/data`: the cases named here out of a folder of the same format.
 *
 *     deno run --allow-read --allow-write tests/golden/subset.ts FOLDER
 *
 * @module
 */
import { readFolder, sha256, type TensorInfo } from "./folder.ts";

/** Every kind of case, at sizes that fit a repository. */
const IDS = [
  "tiny-1x1-d64",
  "gqa3-2x6-d64",
  "odd-3x9-d80-n257",
  "batch2-2x6-d64",
  "keep90-1x1-d128-n333",
  "llama-2x8-d64-n300",
  "llama-batch2-3x3-d80-n120",
  "edge-window-cut-n200",
  "edge-chunk-gt-n",
  "edge-float-floor-n100",
  "edge-n-near-window",
  "edge-all-tied",
];

/** Tensors that no test reads. */
const UNUSED = new Set(["chunk_scores", "k_out", "kept_sorted"]);

if (import.meta.main) {
  const [folder] = Deno.args;
  if (folder === undefined) {
    console.error("Expected the folder to take cases from but found no argument");
    Deno.exit(2);
  }
  const { manifest, bin } = readFolder(folder);
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  const take = <Case extends { tensors: Record<string, TensorInfo> }>(found: Case): Case => {
    const tensors: Record<string, TensorInfo> = {};
    for (const [name, info] of Object.entries(found.tensors)) {
      if (UNUSED.has(name)) continue;
      const padding = -info.bytes & 7;
      pieces.push(bin.slice(info.offset, info.offset + info.bytes), new Uint8Array(padding));
      tensors[name] = { ...info, offset: bytes };
      bytes += info.bytes + padding;
    }
    return { ...found, tensors };
  };
  const cases = IDS.map((id) => {
    const found = manifest.cases.find((one) => one.id === id);
    if (!found) throw new Error(`Expected a case ${id} in ${folder} but found none`);
    return take(found);
  });
  const observed = manifest.observed_attention.map(take);
  const out = new Uint8Array(bytes);
  let offset = 0;
  for (const piece of pieces) {
    out.set(piece, offset);
    offset += piece.length;
  }
  const subset = {
    ...manifest,
    bin_bytes: bytes,
    bin_sha256: sha256(out),
    cases,
    observed_attention: observed,
  };
  const data = new URL("data/", import.meta.url);
  Deno.mkdirSync(data, { recursive: true });
  Deno.writeFileSync(new URL("golden.bin", data), out);
  Deno.writeTextFileSync(new URL("manifest.json", data), JSON.stringify(subset, null, 2) + "\n");
  console.log(`${cases.length} cases, ${bytes} bytes`);
}
