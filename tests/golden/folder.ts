/**
 * Reads a folder of golden cases: `manifest.json` describes `golden.bin`.
 *
 * @module
 */
import { createHash } from "node:crypto";

/** Where a tensor lies in the bin. */
export interface TensorInfo {
  dtype: "f32" | "f64" | "i32";
  shape: number[];
  offset: number;
  bytes: number;
  crc32: number;
}

/** One case of the manifest: what the tests use of it. */
export interface GoldenCase {
  id: string;
  batch: number;
  q_heads: number;
  kv_heads: number;
  head_dim: number;
  n: number;
  window: number;
  kernel_size: number;
  chunk_length: number;
  tensors: Record<string, TensorInfo>;
  kvpress: { k_out_sha256: string; v_out_sha256: string };
  paper: { budget_L: number; rows: { ambiguous: boolean; exact_tie: boolean }[] };
  baselines: {
    snapkv: { n_kept: number; ambiguous: boolean };
    streamingllm: { n_sink: number; n_kept: number };
  };
}

/** Queries of all tokens, and the scores of kvpress's ObservedAttentionPress. */
export interface ObservedCase {
  id: string;
  batch: number;
  q_heads: number;
  kv_heads: number;
  group: number;
  head_dim: number;
  n: number;
  tensors: Record<"q_full" | "k" | "scores", TensorInfo>;
}

/** The manifest. */
export interface Manifest {
  format: string;
  bin: string;
  bin_bytes: number;
  bin_sha256: string;
  cases: GoldenCase[];
  observed_attention: ObservedCase[];
}

/** A folder's contents. */
export interface GoldenFolder {
  manifest: Manifest;
  bin: Uint8Array<ArrayBuffer>;
}

/** The format that this reads. */
export const GOLDEN_FORMAT = "chunkkv-golden/1";

/** The sha256 of some bytes, in hex. */
export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Reads a folder, and makes sure that it is whole. */
export function readFolder(folder: string): GoldenFolder {
  const manifest: Manifest = JSON.parse(Deno.readTextFileSync(`${folder}/manifest.json`));
  if (manifest.format !== GOLDEN_FORMAT) {
    throw new Error(`Expected ${folder} of format ${GOLDEN_FORMAT} but found ${manifest.format}`);
  }
  const bin = Deno.readFileSync(`${folder}/${manifest.bin}`);
  const found = sha256(bin);
  if (found !== manifest.bin_sha256) {
    throw new Error(`Expected ${manifest.bin} of sha256 ${manifest.bin_sha256} but found ${found}`);
  }
  return { manifest, bin };
}

/** The numbers of a tensor. */
export function readTensor(
  bin: Uint8Array<ArrayBuffer>,
  info: TensorInfo,
): Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer> | Int32Array<ArrayBuffer> {
  const bytes = bin.slice(info.offset, info.offset + info.bytes).buffer;
  if (info.dtype === "f32") return new Float32Array(bytes);
  return info.dtype === "f64" ? new Float64Array(bytes) : new Int32Array(bytes);
}
