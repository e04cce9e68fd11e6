/**
 * The blocks of one sequence, in the order of its tokens.
 *
 * @module
 */

/** Maps the rows of a sequence to slots: `slot = table[i / blockSize] * blockSize + i % blockSize`. */
export class BlockTable {
  /** Tokens of a block. */
  readonly blockSize: number;
  readonly #blocks: number[];

  /**
   * @param blockSize Tokens of a block.
   * @param blocks The blocks.
   */
  constructor(blockSize: number, blocks: readonly number[] = []) {
    this.blockSize = blockSize;
    this.#blocks = [...blocks];
  }

  /** The blocks. */
  get blocks(): readonly number[] {
    return this.#blocks;
  }

  /** Rows that the blocks have room for. */
  get capacity(): number {
    return this.#blocks.length * this.blockSize;
  }

  /** Blocks that so many rows need. */
  blocksFor(rows: number): number {
    return Math.ceil(rows / this.blockSize);
  }

  /** Adds blocks at the end. */
  push(blocks: readonly number[]): void {
    for (const block of blocks) this.#blocks.push(block);
  }

  /** Puts blocks in the place of those from `index` on. */
  replaceFrom(index: number, blocks: readonly number[]): number[] {
    const replaced = this.#blocks.splice(index);
    this.push(blocks); // not spread: arguments are limited
    return replaced;
  }

  /** Slots of the rows from `begin` up to and without `end`. */
  slots(begin: number, end: number): Int32Array<ArrayBuffer> {
    const slots = new Int32Array(end - begin);
    for (let row = begin; row < end; row++) {
      const block = this.#blocks[Math.floor(row / this.blockSize)]!;
      slots[row - begin] = block * this.blockSize + row % this.blockSize;
    }
    return slots;
  }
}
