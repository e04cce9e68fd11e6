/**
 * Element types by hand: numbers to the bytes of a row and back, so that tests can compare what C
 * reads with what was written.
 *
 * @module
 */
import { type Dtype, rowBytes } from "chunkkv";

/** Decodes an e4m3fn byte: 4 exponent bits of bias 7, 3 mantissa bits, no infinities. */
function fromE4m3(byte: number): number {
  const sign = byte & 0x80 ? -1 : 1;
  const exponent = byte >> 3 & 15;
  const mantissa = byte & 7;
  if (exponent === 15 && mantissa === 7) return NaN;
  return sign *
    (exponent === 0 ? mantissa / 8 * 2 ** -6 : (1 + mantissa / 8) * 2 ** (exponent - 7));
}

const E4M3 = Array.from({ length: 128 }, (_, byte) => fromE4m3(byte)).slice(0, 127);

function toE4m3(value: number): number {
  if (Number.isNaN(value)) return 0x7f;
  const magnitude = Math.abs(value);
  let low = 0, high = E4M3.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (E4M3[middle]! < magnitude) low = middle + 1;
    else high = middle;
  }
  if (low > 0 && magnitude - E4M3[low - 1]! < E4M3[low]! - magnitude) low--;
  return low | (value < 0 || Object.is(value, -0) ? 0x80 : 0);
}

function toBf16(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer)[0]!;
  if (Number.isNaN(value)) return bits >>> 16 | 0x40;
  return (bits + 0x7fff + (bits >>> 16 & 1)) >>> 16;
}

function fromBf16(bits: number): number {
  return new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!;
}

/** ggml's 32-element blocks: an f16 scale, then the elements. */
function encodeBlock(dtype: "q8_0" | "q4_0", values: readonly number[], to: DataView): void {
  const largest = values.reduce((a, b) => Math.abs(b) > Math.abs(a) ? b : a, 0);
  const scale = dtype === "q8_0" ? Math.abs(largest) / 127 : largest / -8;
  to.setFloat16(0, scale, true);
  const inverse = scale === 0 ? 0 : 1 / scale;
  for (let j = 0; j < 32; j++) {
    if (dtype === "q8_0") {
      to.setInt8(2 + j, Math.round(values[j]! * inverse));
    } else if (j < 16) {
      const low = Math.min(15, Math.trunc(values[j]! * inverse + 8.5));
      const high = Math.min(15, Math.trunc(values[j + 16]! * inverse + 8.5));
      to.setUint8(2 + j, low | high << 4);
    }
  }
}

function decodeBlock(dtype: "q8_0" | "q4_0", from: DataView): number[] {
  const scale = from.getFloat16(0, true);
  return Array.from({ length: 32 }, (_, j) => {
    if (dtype === "q8_0") return scale * from.getInt8(2 + j);
    const byte = from.getUint8(2 + j % 16);
    return scale * ((j < 16 ? byte & 15 : byte >> 4) - 8);
  });
}

/** The bytes of one row of numbers. */
export function encodeRow(dtype: Dtype, values: readonly number[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(rowBytes(dtype, values.length));
  const view = new DataView(bytes.buffer);
  if (dtype === "q8_0" || dtype === "q4_0") {
    const blockBytes = rowBytes(dtype, 32);
    for (let block = 0; block < values.length / 32; block++) {
      encodeBlock(
        dtype,
        values.slice(block * 32, block * 32 + 32),
        new DataView(bytes.buffer, block * blockBytes, blockBytes),
      );
    }
    return bytes;
  }
  values.forEach((value, j) => {
    if (dtype === "f32") view.setFloat32(j * 4, value, true);
    else if (dtype === "f16") view.setFloat16(j * 2, value, true);
    else if (dtype === "bf16") view.setUint16(j * 2, toBf16(value), true);
    else view.setUint8(j, toE4m3(value));
  });
  return bytes;
}

/** The numbers that a row of bytes stands for. */
export function decodeRow(dtype: Dtype, bytes: Uint8Array<ArrayBuffer>): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (dtype === "q8_0" || dtype === "q4_0") {
    const blockBytes = rowBytes(dtype, 32);
    return Array.from(
      { length: bytes.length / blockBytes },
      (_, block) =>
        decodeBlock(
          dtype,
          new DataView(bytes.buffer, bytes.byteOffset + block * blockBytes, blockBytes),
        ),
    ).flat();
  }
  const elementBytes = rowBytes(dtype, 1);
  return Array.from({ length: bytes.length / elementBytes }, (_, j) => {
    if (dtype === "f32") return view.getFloat32(j * 4, true);
    if (dtype === "f16") return view.getFloat16(j * 2, true);
    if (dtype === "bf16") return fromBf16(view.getUint16(j * 2, true));
    return fromE4m3(view.getUint8(j));
  });
}
