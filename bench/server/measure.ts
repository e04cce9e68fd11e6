/**
 * What the preloaded library costs and brings in llama-server, as ratios to the stock server in the
 * same run: decode and prefill with nothing compressed, decode after compression, and how many
 * conversations the same cache holds.
 *
 *     deno run --allow-read --allow-write --allow-env --allow-run --allow-net=127.0.0.1 \
 *       bench/server/measure.ts [overhead] [decode] [sessions]
 *
 * @module
 */
import { formatTable } from "../report/table.ts";
import { type Completion, type Message, Server, type ServerOptions, storyText } from "./server.ts";

const THREADS = 2;

/** One measured figure, stock and preloaded. */
interface Row {
  what: string;
  stock: number;
  preloaded: number;
}

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? NaN;
}

function mean(values: number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/**
 * Answers of servers that take turns, so that only one computes at a time; the order is turned round
 * each time. One row of answers per server.
 */
async function inTurns(
  options: ServerOptions[],
  rounds: number,
  ask: (server: Server, round: number) => Promise<Completion>,
): Promise<Completion[][]> {
  await using stack = new AsyncDisposableStack();
  const servers: Server[] = [];
  for (const one of options) {
    servers.push(stack.use(await Server.start({ threads: THREADS, ...one })));
  }
  const answers: Completion[][] = servers.map(() => []);
  for (let round = 0; round < rounds; round++) {
    const order = [...servers.keys()];
    for (const i of round % 2 === 0 ? order : order.reverse()) {
      answers[i]?.push(await ask(servers[i]!, round));
    }
  }
  return answers;
}

/**
 * The library loaded, its hooks at work, nothing compressed. Four servers of each kind, for equal ones
 * differ by percents, too: the last rows show the slowest stock server against the fastest.
 */
async function overhead(): Promise<Row[]> {
  const args = ["-c", "4096", "-np", "1", "--cache-ram", "0"];
  const kinds = [{ args }, { args, preload: { keep: 1 } }];
  const answers = await inTurns(
    Array.from({ length: 8 }, (_, i) => kinds[(i + (i >> 1)) % 2]!),
    4,
    (server, round) =>
      server.complete(storyText(5200, 100 * round), { n_predict: 128, ignore_eos: true }),
  );
  const isStock = (i: number) => (i + (i >> 1)) % 2 === 0;
  return (["promptPerSecond", "tokensPerSecond"] as const).flatMap((key) => {
    const what = key === "promptPerSecond" ? "prefill" : "decode";
    const speeds = (stock: boolean) =>
      answers.filter((_, i) => isStock(i) === stock).map((one) => median(one.map((a) => a[key])));
    const stock = speeds(true);
    return [
      {
        what: `${what} tok/s, nothing compressed`,
        stock: mean(stock),
        preloaded: mean(speeds(false)),
      },
      {
        what: `${what} tok/s, stock: fastest, slowest`,
        stock: Math.max(...stock),
        preloaded: Math.min(...stock),
      },
    ];
  });
}

/** A prompt of some 6,000 tokens, a tenth of it kept. */
async function decode(): Promise<Row[]> {
  const args = ["-c", "8192", "-np", "1", "--cache-ram", "0"];
  const [stock = [], preloaded = []] = await inTurns(
    [{ args }, { args, preload: { keep: 0.1 } }],
    1,
    (server) => server.complete(storyText(23_500), { n_predict: 128, ignore_eos: true }),
  );
  return [{
    what: `decode tok/s after ${stock[0]?.read} tokens, keep 0.1`,
    stock: median(stock.map((one) => one.tokensPerSecond)),
    preloaded: median(preloaded.map((one) => one.tokensPerSecond)),
  }];
}

/** Conversations of some 1,000 tokens that 4,096 cells hold: whose second turn reads nothing again. */
async function sessions(): Promise<Row[]> {
  const count = 26;
  const held: number[] = [];
  for (const preload of [undefined, { keep: 0.1 }]) {
    await using server = await Server.start({
      ...preload && { preload },
      threads: THREADS,
      args: ["-c", "4096", "-np", String(count), "--kv-unified", "--cache-ram", "0"],
    });
    const chats: { chat: Message[]; read: number }[] = [];
    for (let i = 0; i < count; i++) {
      const chat: Message[] = [{ role: "user", content: storyText(3700, 1000 * i) }];
      const { content, read } = await server.chat(chat, { max_tokens: 4, id_slot: i });
      chat.push({ role: "assistant", content }, { role: "user", content: "Go on." });
      chats.push({ chat, read });
    }
    let hits = 0;
    // Newest first: what an old one reads again drives out others.
    for (const [i, { chat, read }] of [...chats.entries()].reverse()) {
      const { cached } = await server.chat(chat, { max_tokens: 1, id_slot: i });
      if (cached >= read) hits++;
      else break;
    }
    held.push(hits);
  }
  const [stock = NaN, preloaded = NaN] = held;
  return [{ what: "conversations of 1,000 tokens held in 4,096 cells", stock, preloaded }];
}

const PARTS = { overhead, decode, sessions };

if (import.meta.main) {
  const chosen = Deno.args.length > 0 ? Deno.args : Object.keys(PARTS);
  const rows: Row[] = [];
  for (const name of chosen) {
    const part = PARTS[name as keyof typeof PARTS];
    if (!part) throw new Error(`Expected ${Object.keys(PARTS).join(", ")} but found "${name}"`);
    rows.push(...await part());
  }
  console.log(formatTable(rows, [
    { heading: "what", text: (row) => row.what },
    { heading: "stock", text: (row) => row.stock.toFixed(1) },
    { heading: "preloaded", text: (row) => row.preloaded.toFixed(1) },
    { heading: "ratio", text: (row) => (row.preloaded / row.stock).toFixed(3) },
  ]));
}
