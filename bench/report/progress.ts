/**
 * A progress bar on stderr, only where stderr is a terminal.
 *
 * @module
 */
// @ts-types="@types/cli-progress"
import { Presets, SingleBar } from "cli-progress";

/** Shows how far something is; nothing at all when stderr is not a terminal. */
export class Progress {
  #bar: SingleBar | undefined;

  /** Starts a bar from 0 to `total` of some `unit`. */
  constructor(label: string, total: number, unit: string) {
    if (!Deno.stderr.isTerminal()) return;
    this.#bar = new SingleBar({
      format: `${label} [{bar}] {value}/{total} ${unit}, {eta_formatted} left`,
      hideCursor: true,
      clearOnComplete: true,
    }, Presets.shades_classic);
    this.#bar.start(total, 0);
  }

  /** Moves the bar to `value`. */
  update(value: number): void {
    this.#bar?.update(value);
  }

  /** Takes the bar away. */
  [Symbol.dispose](): void {
    this.#bar?.stop();
  }
}
