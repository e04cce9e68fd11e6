/**
 * Mixed requests against llama-server with the preloaded library, a thousand or for some minutes:
 * new chats, next turns, edited turns, cancelled requests, four at a time. Then the same chats, one
 * request at a time, to the stock server and to one with `keep` 1: every answer must be the same.
 *
 *     deno run --allow-read --allow-write --allow-env --allow-run --allow-net=127.0.0.1 \
 *       bench/server/soak.ts --minutes 30 --same 100
 *
 * @module
 */
import { Command } from "commander";
import { quantile } from "simple-statistics";
import { integer } from "../usage.ts";
import { type Completion, type Message, Server, storyText } from "./server.ts";

const PARALLEL = 4;
const ARGS = ["-c", "4096", "-np", String(PARALLEL), "--kv-unified", "--cache-ram", "32"];

/** Numbers from 0 to 1 that are the same in every run. */
function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function newChat(random: () => number): Message[] {
  const length = 500 + Math.floor(1100 * random());
  return [{ role: "user", content: storyText(length, Math.floor(30_000 * random())) }];
}

/** What one request did. */
type Outcome = "new" | "turn" | "edit" | "cancelled";

/** One user who chats, edits and gives up. */
class User {
  #chat: Message[];
  readonly #random: () => number;
  readonly #server: Server;

  constructor(server: Server, seed: number) {
    this.#server = server;
    this.#random = randomNumbers(seed);
    this.#chat = newChat(this.#random);
  }

  async step(mayCancel: boolean): Promise<{ outcome: Outcome; answer?: Completion }> {
    const dice = this.#random();
    let outcome: Outcome = "turn";
    if (dice < 0.15 || this.#chat.length > 11) {
      this.#chat = newChat(this.#random);
      outcome = "new";
    } else if (dice < 0.27 && this.#chat[0]) {
      this.#chat = [{ role: "user", content: `${this.#chat[0].content} Again.` }];
      outcome = "edit";
    } else if (this.#chat.at(-1)?.role === "assistant") {
      this.#chat.push({ role: "user", content: `And what then, number ${Math.floor(99 * dice)}?` });
    }
    if (mayCancel && this.#random() < 0.1) return await this.#cancelled();
    const answer = await this.#server.chat(this.#chat, { max_tokens: 8 });
    this.#chat.push({ role: "assistant", content: answer.content });
    return { outcome, answer };
  }

  async #cancelled(): Promise<{ outcome: Outcome }> {
    const signal = AbortSignal.timeout(20 + Math.floor(400 * this.#random()));
    const body = { messages: this.#chat, max_tokens: 200, temperature: 0 };
    try {
      await this.#server.post("/v1/chat/completions", body, signal);
    } catch (error) {
      if ((error as Error).name !== "TimeoutError") throw error;
    }
    return { outcome: "cancelled" };
  }
}

/** How long requests took that were served, in milliseconds. */
export interface Latency {
  requests: number;
  p50: number;
  p95: number;
  p99: number;
}

/** Counts, memory and times of a soak. */
export interface SoakReport {
  requests: number;
  seconds: number;
  outcomes: Record<string, number>;
  compactions: number;
  skipped: number;
  /** MiB of the server in RAM after each twentieth. */
  rss: number[];
  /** Its open files at the same moments. */
  files: number[];
  /** Of the first and the last fifth of the requests. */
  latency: { start: Latency; end: Latency };
}

/** When a soak ends: after so many requests, or after so many minutes. */
export type SoakLength = { requests: number } | { minutes: number };

/**
 * Sends mixed requests, four at a time; throws at the first that fails.
 *
 * @param length When to end.
 * @param options `threads`: of the server; `pause`: most milliseconds between a user's requests.
 */
export async function soak(
  length: SoakLength,
  { threads = 2, pause = 0 }: { threads?: number; pause?: number } = {},
): Promise<SoakReport> {
  await using server = await Server.start({
    preload: { keep: 0.3, minTokens: 96 },
    args: ARGS,
    threads,
  });
  const outcomes: Record<string, number> = {};
  const [rss, files, times]: [number[], number[], number[]] = [[], [], []];
  const start = performance.now();
  const seconds = () => (performance.now() - start) / 1000;
  let done = 0;
  const progress = () =>
    "requests" in length ? done / length.requests : seconds() / 60 / length.minutes;
  const work = async (seed: number) => {
    const user = new User(server, seed);
    const random = randomNumbers(seed + 1000);
    while (progress() < 1) {
      done++;
      const begin = performance.now();
      const { outcome, answer } = await user.step(true);
      if (answer) times.push(performance.now() - begin);
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
      if (Math.floor(20 * progress()) > rss.length) {
        // Claimed before the wait, or several users would measure the same twentieth.
        const at = rss.push(0) - 1;
        files[at] = await server.openFiles();
        rss[at] = Math.round(await server.rssMib());
      }
      await new Promise((resume) => setTimeout(resume, pause * random()));
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, (_, i) => work(i + 1)));
  const stats = server.stats();
  const compactions = stats.filter(({ event }) => event === "compacted").length;
  const fifth = Math.ceil(times.length / 5);
  return {
    requests: done,
    seconds: Math.round(seconds()),
    outcomes,
    compactions,
    skipped: stats.length - compactions,
    rss,
    files,
    latency: { start: latency(times.slice(0, fifth)), end: latency(times.slice(-fifth)) },
  };
}

function latency(times: number[]): Latency {
  if (times.length === 0) return { requests: 0, p50: NaN, p95: NaN, p99: NaN };
  const [p50, p95, p99] = quantile(times, [0.5, 0.95, 0.99]).map(Math.round);
  return { requests: times.length, p50: p50!, p95: p95!, p99: p99! };
}

/** Answers of the stock server and of one with `keep` 1 to the same requests: how many differ. */
export async function countDifferences(requests: number): Promise<number> {
  const answers: string[][] = [];
  for (const preload of [undefined, { keep: 1, minTokens: 96 }]) {
    await using server = await Server.start({ ...preload && { preload }, args: ARGS, threads: 2 });
    const users = [new User(server, 11), new User(server, 12), new User(server, 13)];
    const own: string[] = [];
    for (let i = 0; i < requests; i++) {
      const { answer } = await users[i % users.length]!.step(false);
      own.push(answer?.content ?? "");
    }
    answers.push(own);
  }
  return answers[0]!.filter((text, i) => text !== answers[1]![i]).length;
}

if (import.meta.main) {
  const options = new Command("soak")
    .option("--requests <N>", "mixed requests", integer("--requests", 1), 1000)
    .option("--minutes <N>", "mixed requests for so long instead", integer("--minutes", 1))
    .option("--pause <MS>", "at most, between a user's requests", integer("--pause", 0), 0)
    .option("--threads <N>", "of the server", integer("--threads", 1), 2)
    .option("--same <N>", "requests to compare with stock", integer("--same", 0), 100)
    .parse(Deno.args, { from: "user" })
    .opts<
      { requests: number; minutes?: number; pause: number; threads: number; same: number }
    >();
  const { requests, minutes, pause, threads } = options;
  const length = minutes === undefined ? { requests } : { minutes };
  console.log(JSON.stringify(await soak(length, { threads, pause })));
  console.log("No request failed");
  const different = await countDifferences(options.same);
  console.log(`keep 1 against stock: ${different} of ${options.same} answers differ`);
  Deno.exit(different === 0 ? 0 : 1);
}
