/**
 * A list that several workers go through.
 *
 * @module
 */

interface Range {
  next: number;
  end: number;
}

/**
 * Gives each place of a list to one worker. A worker gets neighbours, which have much in common, and
 * who is done takes over half of what the one with the most has left.
 */
export class SharedList {
  readonly #ranges: Range[];

  /**
   * @param length Places of the list.
   * @param workers How many share it, at least one.
   */
  constructor(length: number, workers: number) {
    const border = (worker: number) => Math.round(length * worker / workers);
    this.#ranges = Array.from(
      { length: workers },
      (_, worker) => ({ next: border(worker), end: border(worker + 1) }),
    );
  }

  /**
   * The next place for a worker.
   *
   * @param worker Which one, from 0.
   * @returns The place, or undefined if none is left.
   */
  next(worker: number): number | undefined {
    const own = this.#ranges[worker]!;
    if (own.next === own.end) this.#takeOver(own);
    return own.next === own.end ? undefined : own.next++;
  }

  #takeOver(own: Range): void {
    const most = this.#ranges.reduce((a, b) => b.end - b.next > a.end - a.next ? b : a);
    const border = most.next + Math.floor((most.end - most.next) / 2);
    own.next = border;
    own.end = most.end;
    most.end = border;
  }
}
