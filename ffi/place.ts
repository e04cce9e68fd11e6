/**
 * Where a `Compressor` puts its results: in arrays, or on its GPU.
 *
 * @module
 */
import { DeviceBuffer } from "./device_buffer.ts";
import { DeviceKept, DeviceScores } from "./device_results.ts";
import type { Device } from "./enums.ts";
import { Kept } from "./kept.ts";
import type { KvView } from "./kv_view.ts";
import { Scores } from "./scores.ts";
import { check } from "./status.ts";

/** Token scores, wherever they are. */
export type AnyScores = Scores | DeviceScores;

/** Kept indices, wherever they are. */
export type AnyKept = Kept | DeviceKept;

/** Token scores of a `Compressor` of this device. */
export type ScoresOn<D extends Device> = D extends "cuda" ? DeviceScores : Scores;

/** Kept indices of a `Compressor` of this device. */
export type KeptOn<D extends Device> = D extends "cuda" ? DeviceKept : Kept;

/** Memory for results. */
export interface Place {
  /** The device. */
  readonly device: Device;
  /** Room for token scores. */
  scores(
    shape: Pick<AnyScores, "batch" | "numHeads" | "kvLen"> & Pick<KvView, "kvLens">,
  ): AnyScores;
  /** Room for kept indices. */
  kept(batch: number, numHeads: number, capacity: number): AnyKept;
  /** Room for `count` f32. */
  floats(count: number): Float32Array<ArrayBuffer> | DeviceBuffer;
}

/** Results in arrays. */
export const HOST: Place = {
  device: "cpu",
  scores({ batch, numHeads, kvLen, kvLens }) {
    check(!(kvLens instanceof DeviceBuffer), "kvLens in an Int32Array", "a DeviceBuffer");
    return new Scores(batch, numHeads, kvLen, kvLens);
  },
  kept: (batch, numHeads, capacity) => new Kept(batch, numHeads, capacity),
  floats: (count) => new Float32Array(count),
};

/**
 * Results on a GPU.
 *
 * @param deviceIndex Which one.
 * @returns Its place.
 */
export function onDevice(deviceIndex: number): Place {
  const options = { deviceIndex };
  return {
    device: "cuda",
    scores({ batch, numHeads, kvLen, kvLens }) {
      check(
        kvLens === undefined || kvLens instanceof DeviceBuffer,
        "kvLens in a DeviceBuffer",
        "an array",
      );
      return new DeviceScores(batch, numHeads, kvLen, kvLens, options);
    },
    kept: (batch, numHeads, capacity) => new DeviceKept(batch, numHeads, capacity, options),
    floats: (count) => new DeviceBuffer(4 * count, options),
  };
}
