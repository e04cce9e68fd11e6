/**
 * The real llama-server on 127.0.0.1, with or without the preloaded library.
 *
 * @module
 */
import process from "node:process";

import { preloadEnvironment, type PreloadSettings } from "chunkkv/llama-cpp";
import { llamaProgram } from "../../tools/llama_server.ts";
import { gemmaPath, smolLm2Path } from "../../tools/paths.ts";

/** How to start it. */
export interface ServerOptions {
  /** Arguments beyond model, port and one thread. */
  args?: string[];
  /** Settings of the preloaded library; without them it is not loaded. */
  preload?: PreloadSettings;
  /** Gemma 3 270M instead of SmolLM2. */
  gemma?: boolean;
  /** Threads of the server and of the compression; default 1. */
  threads?: number;
  /** More environment variables. */
  env?: Record<string, string>;
}

/** One line of the stats file. */
export interface StatsLine {
  event: "compacted" | "skipped";
  sequence: number;
  positions: number;
  before: number;
  after: number;
  window: number;
  while: "prompt" | "generating";
  reason: string;
}

/** What a request was answered, as far as tests look at it. */
export interface Completion {
  content: string;
  /** Tokens that the server took from its cache, read anew, and generated. */
  cached: number;
  read: number;
  generated: number;
  tokensPerSecond: number;
  promptPerSecond: number;
}

const decoder = new TextDecoder();

/** A running server; stopped by `await using`. */
export class Server {
  readonly #child: Deno.ChildProcess;
  readonly #url: string;
  readonly #folder: string;
  #log = "";
  #copied: Promise<void>;

  private constructor(child: Deno.ChildProcess, port: number, folder: string) {
    this.#child = child;
    this.#url = `http://127.0.0.1:${port}`;
    this.#folder = folder;
    this.#copied = this.#copy(child.stderr);
  }

  /** Starts one and waits until its model is loaded. */
  static async start(options: ServerOptions = {}): Promise<Server> {
    const folder = await Deno.makeTempDir({ prefix: "chunkkv-" });
    const port = freePort();
    const threads = String(options.threads ?? 1);
    const model = options.gemma ? gemmaPath() : smolLm2Path();
    const args = ["-m", model, "--host", "127.0.0.1", "--port", String(port), "-t", threads];
    const { preload } = options;
    const env = preload
      ? preloadEnvironment({
        minTokens: 256,
        threads: Number(threads),
        stats: `${folder}/stats`,
        ...preload,
      })
      : {};
    const child = new Deno.Command(llamaProgram("llama-server"), {
      args: [
        ...args,
        "-ngl",
        process.env["CHUNKKV_TEST_GPU_LAYERS"] ?? "0",
        "--slot-save-path",
        folder,
        ...(options.args ?? []),
      ],
      env: { ...env, ...options.env },
      stdout: "null",
      stderr: "piped",
    }).spawn();
    const server = new Server(child, port, folder);
    try {
      await server.#isReady();
      return server;
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** What it has said on stderr. */
  get log(): string {
    return this.#log;
  }

  /** Its process. */
  get pid(): number {
    return this.#child.pid;
  }

  /** Lines that the preloaded library has said. */
  get said(): string[] {
    return this.#log.match(/chunkkv: .*/g) ?? [];
  }

  /** Memory that it has in RAM now, in MiB. */
  async rssMib(): Promise<number> {
    const args = ["-o", "rss=", "-p", String(this.pid)];
    const { stdout } = await new Deno.Command("ps", { args }).output();
    return Number(decoder.decode(stdout)) / 1024;
  }

  /** Files, sockets and pipes that it has open; Linux. */
  async openFiles(): Promise<number> {
    // Deno itself reads there with --allow-all alone.
    const { stdout } = await new Deno.Command("ls", { args: [`/proc/${this.pid}/fd`] }).output();
    return decoder.decode(stdout).trim().split("\n").length;
  }

  /** What the preloaded library has done. */
  stats(): StatsLine[] {
    try {
      const lines = Deno.readTextFileSync(`${this.#folder}/stats`).trimEnd().split("\n");
      return lines.map((line) => JSON.parse(line));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
  }

  /** A request with its answer as JSON; an HTTP error is thrown with the server's words. */
  async post(path: string, body: unknown, signal?: AbortSignal): Promise<Record<string, unknown>> {
    const response = await fetch(this.#url + path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: signal ?? null,
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${path}: ${response.status} ${text.slice(0, 300)}`);
    return JSON.parse(text);
  }

  /** A text completed at temperature 0. */
  async complete(
    prompt: string | number[],
    more: Record<string, unknown> = {},
    signal?: AbortSignal,
  ): Promise<Completion> {
    const body = { prompt, n_predict: 16, temperature: 0, cache_prompt: true, ...more };
    return completion(await this.post("/completion", body, signal));
  }

  /** A chat's next answer at temperature 0. */
  async chat(messages: Message[], more: Record<string, unknown> = {}): Promise<Completion> {
    const body = { messages, max_tokens: 16, temperature: 0, cache_prompt: true, ...more };
    const answer = await this.post("/v1/chat/completions", body);
    const choices = answer["choices"] as { message: { content: string } }[];
    return completion({ ...answer, content: choices[0]?.message.content });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGTERM");
    } catch { /* It has ended already. */ }
    // With requests under way it waits for them when it ought to end.
    const hurry = setTimeout(() => this.#child.kill("SIGKILL"), 3000);
    await this.#child.status;
    clearTimeout(hurry);
    await this.#copied;
    await Deno.remove(this.#folder, { recursive: true });
  }

  async #copy(stream: ReadableStream<Uint8Array>): Promise<void> {
    for await (const bytes of stream) this.#log += decoder.decode(bytes, { stream: true });
  }

  async #isReady(): Promise<void> {
    const end = Date.now() + 60_000;
    let ended = false;
    this.#child.status.then(() => ended = true);
    while (!ended && Date.now() < end) {
      try {
        const response = await fetch(`${this.#url}/health`);
        await response.body?.cancel();
        if (response.ok) return;
      } catch { /* It does not listen yet. */ }
      await new Promise((done) => setTimeout(done, 100));
    }
    throw new Error(`Expected llama-server to start but found: ${this.#log.slice(-600)}`);
  }
}

/** One message of a chat. */
export interface Message {
  role: "user" | "assistant";
  content: string;
}

function completion(answer: Record<string, unknown>): Completion {
  const timings = answer["timings"] as Record<string, number>;
  return {
    content: String(answer["content"]),
    cached: timings["cache_n"] ?? -1,
    read: timings["prompt_n"] ?? -1,
    generated: timings["predicted_n"] ?? -1,
    tokensPerSecond: timings["predicted_per_second"] ?? -1,
    promptPerSecond: timings["prompt_per_second"] ?? -1,
  };
}

function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  listener.close();
  return port;
}

const story = await Deno.readTextFile(
  new URL("../data/red_headed_league.txt", import.meta.url),
);

/**
 * A part of a real text, `characters` long; four of them are about a token. Where the text ends it
 * begins anew.
 */
export function storyText(characters: number, from = 0): string {
  let text = story.slice(from % story.length);
  while (text.length < characters) text += story;
  return text.slice(0, characters);
}
