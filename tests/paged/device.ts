/**
 * The device that these tests run on: the CPU, or with CHUNKKV_TEST_DEVICE=cuda the GPU of
 * `tests/cuda/fake_cuda.c`, whose memory is this machine's and can be looked into.
 *
 * @module
 */
import { type Device, DeviceBuffer, type KvData, type KvView, type QueryView } from "chunkkv";

/** Where caches under test are. */
export const DEVICE: Device = Deno.env.get("CHUNKKV_TEST_DEVICE") === "cuda" ? "cuda" : "cpu";

/** Memory of zeros on the device. */
export function memoryOf(byteLength: number): Uint8Array<ArrayBuffer> | DeviceBuffer {
  const zeros = new Uint8Array(byteLength);
  return DEVICE === "cuda" ? DeviceBuffer.from(zeros) : zeros;
}

/** The bytes of some memory, to read and to write. */
export function bytesOf({ data }: { data: KvData }): Uint8Array<ArrayBuffer> {
  if (!("pointer" in data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(data.pointer, data.byteLength));
}

/** The numbers behind a view of f32. */
export function floatsOf(view: KvView): Float32Array<ArrayBuffer> {
  const { buffer, byteOffset, byteLength } = bytesOf(view);
  return new Float32Array(buffer, byteOffset, byteLength / 4);
}

/** A view of queries, moved to the device. */
export function queriesThere(view: QueryView): QueryView {
  if (DEVICE === "cpu") return view;
  return { ...view, device: "cuda", data: DeviceBuffer.from(bytesOf(view)) };
}
