/**
 * Random steps on a paged cache, each done on a dense model, too.
 *
 * @module
 */
import { Compressor, type KvData, type KvView } from "chunkkv";
import { OutOfBlocksError, PagedKvCache } from "chunkkv/paged";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { random } from "../random.ts";
import { randomKept, randomSelection } from "./choices.ts";
import { assertSameAttention, assertSameRows, type Pair } from "./compare.ts";
import { DEVICE } from "./device.ts";
import { callersMemory, type PageShape } from "./memory.ts";
import { DenseSequence, type Kind, KINDS, RowSource, type TokenRows, writeToken } from "./model.ts";

/** Sizes of a cache under test. */
export interface ScheduleCase extends PageShape {
  prefixCaching: boolean;
  seed: number;
}

/** What the steps of a schedule did, by name. */
export type Counts = Map<string, number>;

/** A cache, its model, and steps on both. */
export class Schedule implements Disposable {
  readonly #case: ScheduleCase;
  readonly #cache: PagedKvCache;
  readonly #pairs: Pair[] = [];
  readonly #rows: RowSource;
  readonly #next: () => number;
  readonly #compressor = new Compressor({ threads: 1 });
  // Alive as long as the cache that has their addresses.
  readonly #buffers: KvData[] = [];
  readonly #prompts: number[][];
  readonly #counts: Counts;
  #fresh = 1000;

  constructor(one: ScheduleCase, counts: Counts) {
    this.#case = one;
    this.#counts = counts;
    this.#rows = new RowSource(one);
    this.#next = random(one.seed);
    const memory = one.memory === "own" ? undefined : callersMemory(one, this.#next, this.#buffers);
    this.#cache = new PagedKvCache({ ...one, memory, threads: 1, device: DEVICE });
    const most = Math.min(40, one.blockSize * one.numBlocks);
    this.#prompts = Array.from(
      { length: 3 },
      () => Array.from({ length: most }, () => this.#int(0, 2)),
    );
  }

  /** One step. */
  async step(): Promise<void> {
    const actions: [weight: number, name: string, run: () => unknown][] = [
      [3, "create", () => this.#create()],
      [6, "append", () => this.#append()],
      [1, "append too much", () => this.#appendTooMuch()],
      [1, "rollback", () => this.#rollback()],
      [2, "fork", () => this.#fork()],
      [4, "compact", () => this.#compact()],
      [3.5, "free", () => this.#free()],
      [0.1, "forget prefixes", () => this.#cache.forgetPrefixes()],
    ];
    let at = this.#next() * actions.reduce((total, [weight]) => total + weight, 0);
    for (const [weight, name, run] of actions) {
      if ((at -= weight) >= 0) continue;
      this.#count(name);
      await run();
      break;
    }
    this.check();
  }

  /** Compares everything with the model. */
  check(): void {
    const { stats } = this.#cache;
    const holders = new Map<number, number>();
    for (const { paged, dense } of this.#pairs) {
      assertEquals(paged.length, dense.length);
      assertEquals(paged.position, dense.tokens.length);
      assertEquals(paged.blocks.length, Math.ceil(paged.length / this.#case.blockSize));
      assertEquals(new Set(paged.blocks).size, paged.blocks.length, "a block twice in a table");
      for (const block of paged.blocks) holders.set(block, (holders.get(block) ?? 0) + 1);
    }
    assertEquals(stats.free + stats.cached + stats.used, stats.total);
    assertEquals(stats.total, this.#case.numBlocks);
    assertEquals(stats.used, holders.size);
    assertEquals(stats.shared, [...holders.values()].filter((count) => count > 1).length);
    assertSameRows(this.#cache, this.#pairs, this.#case);
  }

  /** Lets go of all sequences: every block must be back. */
  finish(): void {
    while (this.#pairs.length > 0) this.#pairs.pop()!.paged[Symbol.dispose]();
    this.check();
    this.#cache.forgetPrefixes();
    assertEquals(this.#cache.stats.free, this.#case.numBlocks);
  }

  [Symbol.dispose](): void {
    this.#cache[Symbol.dispose]();
    this.#compressor[Symbol.dispose]();
  }

  #create(): void {
    if (this.#pairs.length >= 6) return;
    const prompt = this.#pick(this.#prompts)!.slice(0, this.#int(0, 40));
    for (let i = this.#int(0, 5); i > 0; i--) prompt.push(this.#int(0, 2));
    const salt = this.#next() < 0.2 ? "other" : "";
    const minNew = this.#int(0, 3);
    const paged = this.#cache.createSequence({ prompt, salt, minNew });
    const dense = new DenseSequence(this.#case, salt);
    const { prefixLength } = paged;
    assert(prefixLength <= Math.max(0, prompt.length - minNew));
    assertEquals(prefixLength % this.#case.blockSize, 0);
    if (prefixLength > 0) this.#count("prefix hits");
    for (const token of prompt.slice(0, prefixLength)) dense.push(token, this.#rows);
    dense.committed = dense.length;
    this.#pairs.push({ paged, dense });
    this.#write({ paged, dense }, prompt.slice(prefixLength));
    if (this.#next() < 0.7) this.#commit({ paged, dense });
  }

  #append(pair = this.#pick(this.#pairs)): void {
    if (!pair) return;
    const tokens = Array.from({ length: this.#int(0, 12) }, () => this.#int(0, 2));
    this.#write(pair, tokens, this.#next() < 0.1);
    if (this.#next() < 0.3) this.#commit(pair);
  }

  #commit({ paged, dense }: Pair): void {
    paged.commit();
    dense.committed = dense.length;
  }

  /** Appends tokens and writes their rows; without room nothing may change. */
  #write({ paged, dense }: Pair, tokens: number[], anonymous = false): void {
    if (tokens.length === 0) return;
    // Tokens that the cache is not told are like no others.
    const ids = anonymous ? tokens.map(() => this.#fresh++) : tokens;
    const before = { length: paged.length, blocks: [...paged.blocks] };
    const { stats } = this.#cache;
    let slots;
    try {
      slots = paged.append(anonymous ? ids.length : ids);
    } catch (error) {
      if (!(error instanceof OutOfBlocksError)) throw error;
      this.#count("out of blocks");
      assert(error.needed > stats.free + stats.cached);
      assertEquals({ length: paged.length, blocks: [...paged.blocks] }, before);
      assertEquals(this.#cache.stats, stats);
      dense.committed = dense.length;
      return;
    }
    dense.committed = dense.length;
    assertEquals([...slots.positions], ids.map((_, i) => dense.tokens.length + i));
    const rows = ids.map((token) => dense.push(token, this.#rows));
    for (let layer = 0; layer < this.#case.numLayers; layer++) {
      const pages = this.#cache.layer(layer);
      if (this.#next() < 0.5 && canWrite(pages.keys)) {
        this.#count("write");
        const [keys, values] = KINDS.map((kind) => joined(rows, kind, layer));
        this.#cache.write(layer, { ...slots, keys: keys!, values: values! });
      } else {
        rows.forEach((one, i) => writeToken(pages, slots.slotMapping[i]!, one, layer));
      }
    }
  }

  #appendTooMuch(): void {
    const pair = this.#pick(this.#pairs);
    if (!pair) return;
    const { stats } = this.#cache;
    const blocks = [...pair.paged.blocks];
    const count = (this.#case.numBlocks + 1) * this.#case.blockSize;
    assertThrows(() => pair.paged.append(count), OutOfBlocksError);
    pair.dense.committed = pair.dense.length;
    assertEquals([...pair.paged.blocks], blocks);
    assertEquals(this.#cache.stats, stats);
  }

  #rollback(): void {
    const pair = this.#pick(this.#pairs);
    if (!pair) return;
    pair.paged.rollback();
    pair.dense.rollback();
  }

  #fork(): void {
    const pair = this.#pick(this.#pairs);
    if (!pair || this.#pairs.length >= 6) return;
    pair.dense.committed = pair.dense.length;
    this.#pairs.push({ paged: pair.paged.fork(), dense: pair.dense.fork() });
  }

  #free(): void {
    const [pair] = this.#pairs.splice(this.#int(0, this.#pairs.length), 1);
    pair?.paged[Symbol.dispose]();
    pair?.paged[Symbol.dispose]();
  }

  async #compact(): Promise<void> {
    const pair = this.#pick(this.#pairs);
    if (!pair || pair.paged.length === 0) return;
    const { paged, dense } = pair;
    dense.committed = dense.length;
    const chosen = this.#next() < 0.5
      ? randomSelection(dense, this.#case, this.#next, this.#compressor)
      : { kept: randomKept(dense, this.#case, this.#next) };
    const keepPrefix = this.#next() < 0.7;
    paged.commit(); // so that what follows changes nothing where it fails
    const { stats } = this.#cache;
    const blocks = [...paged.blocks];
    let report, alone = true;
    try {
      if (this.#next() < 0.5) {
        report = paged.compact({ ...chosen, keepPrefix });
      } else {
        const running = paged.compactAsync({ ...chosen, keepPrefix });
        const other = this.#pick(this.#pairs);
        alone = other === undefined || other === pair;
        if (!alone) this.#append(other);
        report = await running;
      }
    } catch (error) {
      if (!(error instanceof OutOfBlocksError)) throw error;
      this.#count("no room to copy out");
      assertEquals([...paged.blocks], blocks);
      if (alone) assertEquals(this.#cache.stats, stats);
      return;
    }
    if (!alone) this.#count("append meanwhile");
    this.#count(report.blocksCopied > 0 ? "copied out" : "in place");
    assertEquals(report.before, dense.length);
    assertEquals(report.blocksBefore, blocks.length);
    if ("expected" in chosen) {
      assertEquals(report.kept.map(({ indices }) => indices), chosen.expected);
    }
    dense.compact(report.kept);
    assertEquals(report.after, dense.length);
    assertEquals(report.blocksAfter, paged.blocks.length);
    assertSameAttention(this.#cache, pair, this.#case, this.#next);
  }

  #count(name: string): void {
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
  }

  #int(least: number, most: number): number {
    return least + Math.floor(this.#next() * (most - least + 1));
  }

  #pick<T>(list: readonly T[]): T | undefined {
    return list[Math.floor(this.#next() * list.length)];
  }
}

/** `[tokens, numKvHeads, headDim]`, as `write` takes them. */
function joined(tokens: readonly TokenRows[], kind: Kind, layer: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(tokens.flatMap((rows) => rows[kind][layer]!.flatMap((row) => [...row])));
}

/** Whether `write` knows these strides: on a GPU blocks lie whole tokens apart. */
function canWrite({ strideBlock, strideToken }: KvView): boolean {
  return DEVICE === "cpu" || strideBlock % strideToken === 0;
}
