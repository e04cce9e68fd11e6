/**
 * Chat messages as the texts that a model was trained on.
 *
 * @module
 */
import { check, ChunkKvError } from "../../ffi/status.ts";
import { bridge, cString, fetchBytes, type Handle } from "./native.ts";

/** One message of a chat. */
export interface ChatMessage {
  /** Who speaks: `system`, `user` or `assistant`. */
  role: string;
  /** What is said. */
  content: string;
}

/** How {@linkcode applyChatTemplate} writes messages. */
export interface ChatTemplateOptions {
  /** Whether to end with what begins the assistant's answer. @default {true} */
  openAssistantTurn?: boolean;
  /** A template other than the model's own: its Jinja text, or a name such as `chatml`. */
  template?: string;
}

const MISSING = -1;

/**
 * Writes messages with a model's chat template.
 *
 * @param model A loaded model.
 * @param messages The messages, oldest first.
 * @param options How to write them.
 * @returns The text, control tokens written out.
 * @throws {ChunkKvError} `unsupported` if the model has no template or llama.cpp does not know it;
 * `invalid_argument` if there is no message.
 */
export function applyChatTemplate(
  model: Handle,
  messages: readonly ChatMessage[],
  options: ChatTemplateOptions = {},
): string {
  const { openAssistantTurn = true, template } = options;
  check(messages.length > 0, "at least one message", "none");
  const packed = packMessages(messages);
  const bytes = fetchBytes((buffer) =>
    bridge().ckv_llama_apply_chat_template(
      model.pointer,
      template === undefined ? null : cString(template, "a chat template"),
      packed,
      packed.length,
      Number(openAssistantTurn),
      buffer,
      buffer.length,
    ), 2 * packed.length + 256);
  if (typeof bytes !== "number") return new TextDecoder().decode(bytes);
  throw new ChunkKvError(
    "unsupported",
    bytes === MISSING
      ? "Expected a model with a chat template but found none: name one, such as chatml"
      : "Expected a chat template that llama.cpp knows but found another",
  );
}

function packMessages(messages: readonly ChatMessage[]): Uint8Array<ArrayBuffer> {
  const parts = messages.flatMap(({ role, content }) => [
    cString(role, "a role"),
    cString(content, "a message"),
  ]);
  const packed = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    packed.set(part, offset);
    offset += part.length;
  }
  return packed;
}

/**
 * A conversation in one sequence: what of it the cache has, so that a next turn adds only what is
 * new.
 */
export class Conversation {
  readonly #render: (messages: readonly ChatMessage[]) => string;
  #messages: ChatMessage[] = [];
  #cached = "";

  /** @param render Writes messages with the chat template, the assistant's turn open. */
  constructor(render: (messages: readonly ChatMessage[]) => string) {
    this.#render = render;
  }

  /**
   * The text that continues the conversation, the end of the assistant's last turn included.
   *
   * @param messages New messages.
   * @returns The text to add, and what makes it part of the conversation once it is in the cache.
   */
  next(messages: readonly ChatMessage[]): { text: string; accept: () => void } {
    const reply = this.#reply;
    const all = [...this.#messages];
    if (this.#cached) all.push({ role: "assistant", content: reply });
    all.push(...messages.map(({ role, content }) => ({ role, content })));
    const whole = this.#render(all);
    const text = this.#cached ? this.#suffix(whole, reply) : whole;
    return {
      text: text ?? this.#render(messages),
      accept: () => {
        this.#messages = all;
        this.#cached = whole;
        this.#reply = "";
      },
    };
  }

  #reply = "";

  /**
   * Notes what the assistant says.
   *
   * @param piece Text that has been generated.
   */
  hear(piece: string): void {
    if (this.#cached) this.#reply += piece;
  }

  // What follows the reply; undefined if the template does not write the past as it did before.
  #suffix(whole: string, reply: string): string | undefined {
    if (!whole.startsWith(this.#cached)) return undefined;
    const rest = whole.slice(this.#cached.length);
    for (const said of [reply, reply.trim()]) {
      if (rest.startsWith(said)) return rest.slice(said.length);
    }
    return undefined;
  }
}
