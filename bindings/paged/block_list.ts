/**
 * Blocks in an order from which any of them can leave.
 *
 * @module
 */

/** A doubly linked list of block numbers; every operation takes constant time. */
export class BlockList {
  // Neighbours of each block. Entry `#end` closes the ring: its neighbours are the first and the last.
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #end: number;
  #length = 0;

  /** @param numBlocks Blocks that there are, all outside the list. */
  constructor(numBlocks: number) {
    this.#end = numBlocks;
    this.#next = new Int32Array(numBlocks + 1).fill(numBlocks);
    this.#previous = new Int32Array(numBlocks + 1).fill(numBlocks);
  }

  /** Blocks in the list. */
  get length(): number {
    return this.#length;
  }

  /** The block that has been in the list for longest; `undefined` if it is empty. */
  get first(): number | undefined {
    return this.#length > 0 ? this.#next[this.#end] : undefined;
  }

  /** Adds a block that is not in the list at its end. */
  push(block: number): void {
    const last = this.#previous[this.#end]!;
    this.#next[last] = block;
    this.#previous[block] = last;
    this.#next[block] = this.#end;
    this.#previous[this.#end] = block;
    this.#length++;
  }

  /** Takes a block out that is in the list. */
  remove(block: number): void {
    const next = this.#next[block]!, previous = this.#previous[block]!;
    this.#next[previous] = next;
    this.#previous[next] = previous;
    this.#length--;
  }
}
