/**
 * Asks `vllm serve` one question about a text, without compression and with it, and compares the
 * answers. The text comes from stdin; `--help` says what else there is.
 *
 * @module
 */
import { parseArgs } from "node:util";

/** What a request asks of the plugin: nothing, or how much of the prompt stays. */
export type Override = "off" | { keep: number } | { budget: number };

/** An answer and what it took. */
export interface Answer {
  /** What the model said. */
  text: string;
  /** Tokens of the prompt. */
  promptTokens: number;
  /** From the request to the whole answer. */
  seconds: number;
}

/** Settings of {@linkcode ask}. */
export interface AskOptions {
  /** Most tokens of the answer. @default {64} */
  maxTokens?: number;
  /** The model's name on the server; by default the first one that it serves. */
  model?: string;
}

/**
 * Sends a chat of one message.
 *
 * @param url The server, such as `http://127.0.0.1:8000`.
 * @param message What the user says.
 * @param override Goes to the plugin; it is JSON text because `vllm_xargs` holds no objects.
 * @throws {Error} If the server cannot be reached or does not answer with 200; its text is quoted.
 */
export async function ask(
  url: string,
  message: string,
  override: Override,
  { maxTokens = 64, model }: AskOptions = {},
): Promise<Answer> {
  const start = performance.now();
  const answer = await request(new URL("/v1/chat/completions", url), {
    model: model ?? await firstModel(url),
    messages: [{ role: "user", content: message }],
    max_tokens: maxTokens,
    temperature: 0,
    vllm_xargs: { chunkkv: override === "off" ? "off" : JSON.stringify(override) },
  });
  const { choices, usage } = answer as {
    choices: { message: { content: string } }[];
    usage: { prompt_tokens: number };
  };
  return {
    text: choices[0]?.message.content ?? "",
    promptTokens: usage.prompt_tokens,
    seconds: (performance.now() - start) / 1000,
  };
}

/** The name of the first model that the server has. */
export async function firstModel(url: string): Promise<string> {
  const { data } = await request(new URL("/v1/models", url)) as { data: { id: string }[] };
  const first = data[0];
  if (!first) throw new Error(`Expected a model at ${url} but found none`);
  return first.id;
}

async function request(url: URL, body?: unknown): Promise<unknown> {
  const response = await fetch(
    url,
    body === undefined ? {} : {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    },
  );
  const text = await response.text();
  if (!response.ok) {
    throw new Error(`Expected 200 from ${url} but found ${response.status}: ${text}`);
  }
  return JSON.parse(text);
}

const USAGE = `deno run --allow-net=127.0.0.1:8000 bindings/vllm/client.ts [options] < TEXT

  --url URL        the server (http://127.0.0.1:8000)
  --question TEXT  what to ask about the text on stdin
  --keep LIST      fractions of the prompt to keep (0.5,0.2)
  --tokens N       most tokens of an answer (64)
  --json           one line of JSON for each answer`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      url: { type: "string", default: "http://127.0.0.1:8000" },
      question: { type: "string", default: "What is this text about? Answer in one sentence." },
      keep: { type: "string", default: "0.5,0.2" },
      tokens: { type: "string", default: "64" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return console.log(USAGE);
  const text = await new Response(Deno.stdin.readable).text();
  const message = `${text.trim()}\n\n${values.question}`;
  const overrides = values.keep.split(",").map((keep): Override => ({ keep: Number(keep) }));
  for (const override of ["off" as const, ...overrides]) {
    const answer = await ask(values.url, message, override, { maxTokens: Number(values.tokens) });
    const name = override === "off" ? "off" : JSON.stringify(override);
    if (values.json) console.log(JSON.stringify({ override, ...answer }));
    else console.log(`${name} (${answer.seconds.toFixed(1)} s)\n  ${answer.text.trim()}\n`);
  }
}

if (import.meta.main) await main();
