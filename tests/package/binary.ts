/**
 * What kind of library a file is, by its first bytes.
 *
 * @module
 */

const MACHINES: Record<string, Record<number, string>> = {
  ELF: { 62: "x86_64", 183: "aarch64" },
  MachO: { 0x01000007: "x86_64", 0x0100000c: "aarch64" },
  PE: { 0x8664: "x86_64", 0xaa64: "aarch64" },
};

/** Such as `ELF x86_64`. */
export function binaryKind(bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const magic = view.getUint32(0);
  if (magic === 0x7f454c46) return named("ELF", view.getUint16(18, true));
  if (magic === 0xcffaedfe) return named("MachO", view.getUint32(4, true));
  const header = magic >>> 16 === 0x4d5a ? view.getUint32(0x3c, true) : -1;
  if (header > 0 && view.getUint32(header) === 0x50450000) {
    return named("PE", view.getUint16(header + 4, true));
  }
  return `unknown ${magic.toString(16)}`;
}

/** The newest glibc that an ELF file asks for, as the number after `2.`; 0 where it asks for none. */
export function newestGlibc(bytes: Uint8Array): number {
  const text = new TextDecoder("latin1").decode(bytes);
  return Math.max(0, ...[...text.matchAll(/GLIBC_2\.(\d+)/g)].map((match) => Number(match[1])));
}

function named(format: string, machine: number): string {
  return `${format} ${MACHINES[format]?.[machine] ?? `machine ${machine}`}`;
}
