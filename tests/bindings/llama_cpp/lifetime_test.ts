/**
 * What nobody disposed of goes when nobody has it any more.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { type LlamaContext, LlamaModel } from "chunkkv/llama-cpp";

import { prefilled, settings, TOKENS } from "./expect_error.ts";
import { smolLm2 } from "./models.ts";
import { storyTokens } from "./prompts.ts";

const model = await LlamaModel.load(smolLm2());

/** A signal that counts its listeners. */
function countedSignal(): { controller: AbortController; listeners: () => number } {
  const controller = new AbortController();
  const { signal } = controller;
  const known = new Set<unknown>();
  const [add, remove] = [signal.addEventListener, signal.removeEventListener];
  Object.assign(signal, {
    addEventListener: (type: "abort", listener: () => void, options?: AddEventListenerOptions) => {
      known.add(listener);
      add.call(signal, type, listener, options);
    },
    removeEventListener: (type: "abort", listener: () => void) => {
      known.delete(listener);
      remove.call(signal, type, listener);
    },
  });
  return { controller, listeners: () => known.size };
}

Deno.test("a generation that was dropped has left no listener, and an abort does no harm", async () => {
  const context = await prefilled(model);
  const { controller, listeners } = countedSignal();
  const pieces = context.generate({ signal: controller.signal, temperature: 0, ignoreEnd: true });
  const next = pieces.next();
  assertEquals(listeners(), 1);
  await next;
  assertEquals(listeners(), 0);
  context[Symbol.dispose]();
  controller.abort();
});

Deno.test("a prompt listens only while the engine runs", async () => {
  using context: LlamaContext = model.createContext({ ...settings, batchSize: 32 });
  const { controller, listeners } = countedSignal();
  const seen: number[] = [];
  const onProgress = () => seen.push(listeners());
  await context.prefill(storyTokens(model, TOKENS), { signal: controller.signal, onProgress });
  assertEquals([...seen, listeners()], [0, 0, 0, 0]);
});

Deno.test("disposing and then aborting while a prompt goes in does not end the process", async () => {
  const context = model.createContext(settings);
  const controller = new AbortController();
  const running = context.prefill(storyTokens(model, 200), { signal: controller.signal });
  const failed = running.then(() => false, () => true);
  context[Symbol.dispose]();
  controller.abort();
  assert(await failed);
});

Deno.test("models, contexts and generations that are dropped are collected", async () => {
  const code = `
    const alive = [];
    const watch = (object) => (alive.push(new WeakRef(object)), object);
    const { register } = FinalizationRegistry.prototype;
    FinalizationRegistry.prototype.register = function (target, ...rest) {
      if (/Handle$/.test(target.constructor.name)) watch(target);
      return register.call(this, target, ...rest);
    };
    const { LlamaModel } = await import("chunkkv/llama-cpp");
    const controller = new AbortController();
    async function use() {
      const model = watch(await LlamaModel.load(${JSON.stringify(smolLm2())}));
      const context = watch(model.createContext({ contextSize: 256, threads: 1 }));
      await context.prefill("One two three");
      const pieces = watch(context.generate({ signal: controller.signal, ignoreEnd: true }));
      await pieces.next();
    }
    await use();
    for (let i = 0; i < 100 && alive.filter((one) => one.deref()).length > 1; i++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      gc();
    }
    // Engine, model, context and sampler in C; model, context and generator. The engine stays.
    console.log(alive.length, alive.filter((one) => one.deref()).length);
    controller.abort();
  `;
  const root = new URL("../../../", import.meta.url);
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-check", "--allow-read", "--allow-env", "--allow-ffi"]
      .concat(["--v8-flags=--expose-gc", "--ext=js", "-"]),
    cwd: root,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(code));
  await writer.close();
  const { stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  assertEquals(text(stdout), "7 1", text(stderr));
});

globalThis.addEventListener("unload", () => model[Symbol.dispose]());
