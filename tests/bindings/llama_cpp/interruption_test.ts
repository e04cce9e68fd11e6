/**
 * Calls that are stopped, collide, or come too late: a typed error, and everything as before.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ChunkKvError, LlamaModel } from "chunkkv/llama-cpp";

import { ContextHandle } from "../../../bindings/llama_cpp/context_handle.ts";
import { loadEngine } from "../../../bindings/llama_cpp/engine.ts";
import { bridge, cString, Handle } from "../../../bindings/llama_cpp/native.ts";
import { prefill } from "../../../bindings/llama_cpp/prefill.ts";
import { MODEL_PARAMS, packStruct } from "../../../bindings/llama_cpp/structs.ts";
import { STATUS } from "../../../ffi/status.ts";
import { assertSameBits } from "./compare.ts";
import { prefilled, rejects, settings, throws, TOKENS } from "./expect_error.ts";
import { smolLm2 } from "./models.ts";
import { storyTokens } from "./prompts.ts";

const model = await LlamaModel.load(smolLm2());

Deno.test("a prompt that is stopped leaves the sequence as it was", async (t) => {
  using context = model.createContext({ ...settings, batchSize: 32, microBatchSize: 16 });
  await context.prefill(storyTokens(model, TOKENS));
  const [state, logits] = [context.saveState(), context.logits()];
  const unchanged = () => {
    assertEquals(context.tokenCount(), TOKENS);
    assertEquals(context.saveState(), state);
    assertSameBits(context.logits(), logits, "after the stop");
  };
  await t.step("between batches", async () => {
    const controller = new AbortController();
    const onProgress = ({ done }: { done: number }) => done === 64 && controller.abort("enough");
    const error = await assertRejects(
      () => context.prefill(storyTokens(model, 150, 9), { signal: controller.signal, onProgress }),
      ChunkKvError,
    );
    assertEquals([error.code, error.cause], ["cancelled", "enough"]);
    unchanged();
  });
  await t.step("inside a batch", async () => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 30);
    await rejects(
      () => context.prefill(storyTokens(model, 150, 9), { signal: controller.signal }),
      "cancelled",
      "aborted",
    );
    unchanged();
  });
  await t.step("before it starts", async () => {
    await rejects(
      () => context.prefill([1, 2], { signal: AbortSignal.abort() }),
      "cancelled",
      "aborted",
    );
    unchanged();
  });
  await t.step("and compresses as if there had been none", () => {
    const { refreshMilliseconds, after } = context.compress({ keep: 0.6 });
    assertEquals([refreshMilliseconds, after], [0, 36]);
  });
});

Deno.test("a generation that is stopped keeps what it has generated", async () => {
  using context = await prefilled(model);
  const controller = new AbortController();
  let pieces = 0;
  await rejects(
    async () => {
      for await (const _ of context.generate({ signal: controller.signal, temperature: 0 })) {
        if (++pieces === 3) controller.abort();
      }
    },
    "cancelled",
    "aborted",
  );
  assertEquals(context.tokenCount(), TOKENS + 3);
  context.logits();
});

Deno.test("an error in a progress callback undoes the prompt and is passed on", async () => {
  using context = await prefilled(model, { batchSize: 32 });
  const state = context.saveState();
  const onProgress = ({ done }: { done: number }) => {
    if (done > 0) throw new TypeError("mine");
  };
  await assertRejects(() => context.prefill(storyTokens(model, 90), { onProgress }), TypeError);
  assertEquals(context.saveState(), state);
});

Deno.test("a second call meanwhile is refused, the first one goes on", async () => {
  using context = await prefilled(model, { batchSize: 32 });
  const running = context.prefill(storyTokens(model, 64, 5));
  throws(() => context.compress({ keep: 0.5 }), "busy", "one call at a time");
  throws(() => context.tokenCount(), "busy", "one call at a time");
  await rejects(() => context.prefill([1]), "busy", "one call at a time");
  await running;
  assertEquals(context.tokenCount(), TOKENS + 64);
});

Deno.test("a prompt's progress can ask for what is there, and only that", async () => {
  using context = await prefilled(model, { batchSize: 32 });
  const counts: number[][] = [];
  const onProgress = () => {
    counts.push([context.tokenCount(), context.cellCount(), context.positions().at(-1) ?? -1]);
    if (counts.length > 2) return;
    throws(() => context.saveState(), "busy", "no prompt to be going in");
    throws(() => context.clear(), "busy", "no prompt to be going in");
  };
  await context.prefill(storyTokens(model, 64, 5), { onProgress });
  assertEquals(counts, [60, 92, 124].map((count) => [count, count, count - 1]));
  assert(context.kvBytes() > 0);
});

Deno.test("a step that another call keeps out is taken again, and the prompt goes in", async () => {
  class Colliding extends ContextHandle {
    collisions = 0;
    override run<T>(call: (pointer: Deno.PointerObject) => Promise<T>): Promise<T> {
      return ++this.collisions % 3 ? Promise.resolve(STATUS.busy as T) : super.run(call);
    }
  }
  const native = bridge();
  const engine = await loadEngine();
  const handle = new Handle(
    "a model",
    native.ckv_llama_model_new(engine.handle.pointer),
    (pointer) => native.ckv_llama_model_free(pointer),
  );
  const path = cString(smolLm2(), "a path");
  const params = packStruct(MODEL_PARAMS, { gpu_layers: 0, use_mmap: 1 });
  const load = (pointer: Deno.PointerObject) =>
    native.ckv_llama_model_load_async(pointer, path, params);
  assertEquals(await handle.run(load), STATUS.ok);
  const context = new Colliding(handle, settings);
  try {
    await prefill(context, storyTokens(model, 40), 20, {});
    assertEquals(context.collisions, 6);
    assertEquals(native.ckv_llama_sequence_length(context.pointer, 0), 40);
    // No prompt is open: the next one may begin.
    await prefill(context, storyTokens(model, 10), 20, {});
  } finally {
    context.dispose();
    handle.dispose();
  }
});

Deno.test("what has been disposed of says so; doing it again does nothing", async () => {
  const context = await prefilled(model);
  context[Symbol.dispose]();
  context[Symbol.dispose]();
  const uses: (() => unknown)[] = [
    () => context.compress({ keep: 0.5 }),
    () => context.compact([[0]]),
    () => context.logits(),
    () => context.tokenCount(),
    () => context.kvBytes(),
    () => context.clear(),
    () => context.shift(1),
    () => context.saveState(),
  ];
  for (const use of uses) throws(use, "disposed", "Expected a context but found it disposed of");
  await rejects(() => context.prefill("text"), "disposed", "a context");
  await rejects(() => context.generate().next(), "disposed", "a context");
});

Deno.test("disposing of a model disposes of its contexts", async () => {
  const other = await LlamaModel.load(smolLm2());
  const context = other.createContext(settings);
  other[Symbol.dispose]();
  throws(() => context.tokenCount(), "disposed", "a context");
  throws(() => other.createContext(), "disposed", "Expected a model but found it disposed of");
  throws(() => other.tokenizer.tokenize("a"), "disposed", "a model");
});

Deno.test("disposing while a prompt goes in stops it, and frees when it is back", async () => {
  const context = model.createContext(settings);
  const running = context.prefill(storyTokens(model, 250));
  await new Promise((resolve) => setTimeout(resolve, 20));
  context[Symbol.dispose]();
  await assertRejects(() => running, ChunkKvError);
  throws(() => context.tokenCount(), "disposed", "a context");
});

Deno.test("loading can be stopped", async () => {
  await rejects(
    () => LlamaModel.load(smolLm2(), { signal: AbortSignal.abort() }),
    "cancelled",
    "aborted",
  );
  const controller = new AbortController();
  const loading = LlamaModel.load(smolLm2(), { signal: controller.signal, useMmap: false });
  setTimeout(() => controller.abort(), 5);
  await rejects(() => loading, "cancelled", "aborted");
});

Deno.test("loading tells how far it is", async () => {
  const fractions: number[] = [];
  using loaded = await LlamaModel.load(smolLm2(), { onProgress: (f) => fractions.push(f) });
  assertEquals(fractions.at(-1), 1);
  assert(fractions.every((fraction, i) => fraction >= (fractions[i - 1] ?? 0)));
  assertEquals(loaded.info.numLayers, 30);
});

globalThis.addEventListener("unload", () => model[Symbol.dispose]());
