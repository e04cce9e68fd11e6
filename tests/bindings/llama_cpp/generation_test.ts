import { assert, assertEquals, assertThrows } from "@std/assert";
import { ChunkKvError, LlamaModel } from "chunkkv/llama-cpp";

import { assertSameBits, greedyLogits } from "./compare.ts";
import { smolLm2, THREADS } from "./models.ts";
import { story, storyTokens } from "./prompts.ts";

const model = await LlamaModel.load(smolLm2());
const settings = { contextSize: 512, threads: THREADS };

async function collect<T>(
  pieces: AsyncGenerator<string, T, void>,
): Promise<{ text: string; result: T }> {
  let text = "";
  while (true) {
    const { done, value } = await pieces.next();
    if (done) return { text, result: value };
    text += value;
  }
}

Deno.test("the model says what it is", () => {
  const { info, engine } = model;
  assertEquals([info.numLayers, info.numQHeads, info.numKvHeads], [30, 9, 3]);
  assertEquals([info.vocabSize, info.trainedContext, info.slidingWindow], [49152, 8192, 0]);
  assert(info.numParameters > 130e6 && info.sizeBytes > 90e6);
  assert(engine.version.startsWith(engine.release));
  assertEquals(model.metadata("general.architecture"), "llama");
  assertEquals(model.metadata("no.such.key"), undefined);
  assert(model.chatTemplate?.includes("<|im_start|>"));
});

Deno.test("tokens of a text make the text again", () => {
  const { tokenizer } = model;
  for (const text of ["", "Hello, world!", "naïve – 漢字 🦙\n\ttabs", story(2)]) {
    assertEquals(tokenizer.detokenize(tokenizer.tokenize(text)), text);
  }
  const [control] = tokenizer.tokenize("<|im_end|>");
  assert(tokenizer.isEndOfGeneration(control ?? -1));
  assertEquals(tokenizer.tokenize("<|im_end|>", { parseSpecial: false }).length > 1, true);
  assertEquals(new TextDecoder().decode(tokenizer.piece(control ?? -1)), "");
  assertEquals(
    new TextDecoder().decode(tokenizer.piece(control ?? -1, { withSpecial: true })),
    "<|im_end|>",
  );
});

Deno.test("messages are written with the model's template or another", () => {
  const messages = [{ role: "user", content: "Hi <there>" }];
  assertEquals(
    model.applyChatTemplate(messages, { openAssistantTurn: false }),
    "<|im_start|>user\nHi <there><|im_end|>\n",
  );
  assert(model.applyChatTemplate(messages).endsWith("<|im_start|>assistant\n"));
  assert(model.applyChatTemplate(messages, { template: "llama3" }).includes("<|eot_id|>"));
  for (
    const [run, code] of [
      [() => model.applyChatTemplate([]), "invalid_argument"],
      [() => model.applyChatTemplate(messages, { template: "{{ odd }}" }), "unsupported"],
      [() => model.applyChatTemplate([{ role: "a\0b", content: "" }]), "invalid_argument"],
    ] as const
  ) {
    assertEquals(assertThrows(run, ChunkKvError).code, code);
  }
});

Deno.test("temperature 0 picks the most likely token each time", async () => {
  const tokens = storyTokens(model, 50);
  using context = model.createContext(settings);
  await context.prefill(tokens);
  const { result } = await collect(context.generate({ temperature: 0, maxTokens: 8 }));
  assertEquals([result.reason, result.tokens.length], ["length", 8]);
  assertEquals(context.tokenCount(), 58);
  using other = model.createContext(settings);
  await other.prefill(tokens);
  const logits = await greedyLogits(other, 8);
  result.tokens.forEach((token, i) => {
    assertEquals(token, logits[i]?.indexOf(Math.max(...logits[i] ?? [])));
  });
  assertSameBits(context.logits(), logits[8] ?? new Float32Array(), "after 8 tokens");
});

Deno.test("a seed makes a varied text the same again, another seed another one", async () => {
  const said = async (seed: number) => {
    using context = model.createContext(settings);
    await context.prefill(storyTokens(model, 40));
    return (await collect(context.generate({ seed, temperature: 1.5, maxTokens: 12 }))).text;
  };
  const [first, again, other] = [await said(1), await said(1), await said(2)];
  assertEquals(first, again);
  assert(first !== other);
});

Deno.test("a repeat penalty keeps the model from saying the same again", async () => {
  const said = async (repeatPenalty: number) => {
    using context = model.createContext(settings);
    await context.prefill("la la la la la la la la la la la la");
    const { result } = await collect(
      context.generate({ temperature: 0, maxTokens: 12, repeatPenalty }),
    );
    return new Set(result.tokens).size;
  };
  assert(await said(2) > await said(1));
});

Deno.test("the end of the model's turn ends the generation and is not in the cache", async () => {
  using context = model.createContext(settings);
  await context.prefill([{ role: "user", content: "Say only the word yes." }]);
  const before = context.tokenCount();
  const { text, result } = await collect(context.generate({ temperature: 0, maxTokens: 100 }));
  assertEquals(result.reason, "end");
  assertEquals(context.tokenCount(), before + result.tokens.length);
  assertEquals(text, model.tokenizer.detokenize(result.tokens));
});

Deno.test("the engine runs unhooked where nothing is captured", async () => {
  using context = model.createContext(settings);
  assertEquals(context.isUnhooked, false); // no scheduler has been seen yet
  await context.prefill("Count: one, two, three, four, five, six,");
  assertEquals(context.isUnhooked, Deno.build.os === "linux");
  // Graphs are used again between captured prompts and generated tokens: both must go on.
  for (let turn = 0; turn < 3; turn++) {
    await collect(context.generate({ temperature: 0, maxTokens: 5 }));
    await context.prefill(" and so on, further and further, up to seven, eight, nine and ten,");
    const { before, after, refreshMilliseconds } = context.compress({
      budget: 20,
      window: 8,
      chunkSize: 2,
    });
    assert(before > 20 && after === 20, `${before} -> ${after}`);
    assertEquals(refreshMilliseconds, 0); // the prompt's end was captured
  }
});

Deno.test("a stop text ends the generation and is not part of it", async () => {
  using context = model.createContext(settings);
  await context.prefill("Count: one, two, three, four, five, six,");
  const { text, result } = await collect(
    context.generate({ temperature: 0, maxTokens: 40, stop: [" nine", "never"] }),
  );
  assertEquals(result.reason, "stop");
  assert(text.includes("eight") && !text.includes("nine"), text);
});

Deno.test("a conversation adds only what is new, the end of the last turn included", async () => {
  using context = model.createContext(settings);
  await context.prefill([{ role: "user", content: "What is the capital of France?" }]);
  const { text } = await collect(context.generate({ temperature: 0, maxTokens: 30 }));
  assert(text.includes("Paris"), text);
  await context.prefill([{ role: "user", content: "And of Italy?" }]);
  // The same as all of it in one prompt, written out.
  const whole = model.applyChatTemplate([
    { role: "user", content: "What is the capital of France?" },
    { role: "assistant", content: text },
    { role: "user", content: "And of Italy?" },
  ]);
  assertEquals(context.tokenCount(), model.tokenizer.tokenize(whole, { addSpecial: true }).length);
  context.compress({ keep: 0.7 });
  const { text: second } = await collect(context.generate({ temperature: 0, maxTokens: 30 }));
  assert(second.includes("Italy"), second);
});

globalThis.addEventListener("unload", () => model[Symbol.dispose]());

Deno.test("a penalty over more tokens than there will ever be takes no memory for them", async () => {
  using context = model.createContext(settings);
  await context.prefill(storyTokens(model, 20));
  const before = Deno.memoryUsage().rss;
  const options = { temperature: 0, maxTokens: 3, repeatPenalty: 1.1, repeatLast: 2 ** 31 - 1 };
  let most = 0;
  for await (const _ of context.generate(options)) {
    most = Math.max(most, Deno.memoryUsage().rss); // the sampler lives while it generates
  }
  assert(most > 0 && most - before < 2 ** 30, `${before} to ${most} bytes`);
});

Deno.test("a model without a vocabulary has no texts, and says so", async () => {
  const bytes = await Deno.readFile(smolLm2());
  const header = new TextDecoder("latin1").decode(bytes.subarray(0, 4096));
  const own = header.indexOf("tokenizer.ggml.model");
  const name = header.indexOf("general.name");
  const lengthAt = (at: number) => new DataView(bytes.buffer).getUint32(at, true);
  // "gpt2" becomes "no_vocab", and the model's name four bytes shorter: all else stays where it was.
  const kind = own + "tokenizer.ggml.model".length + 4, named = name + "general.name".length + 4;
  const kindLength = lengthAt(kind), nameLength = lengthAt(named);
  assertEquals([kindLength, nameLength > 4, named < kind], [4, true, true]);
  const end = named + 8 + nameLength;
  const parts = [
    bytes.subarray(0, end - 4),
    bytes.subarray(end, kind),
    new Uint8Array([8, 0, 0, 0, 0, 0, 0, 0]),
    new TextEncoder().encode("no_vocab"),
    bytes.subarray(kind + 8 + 4),
  ];
  const copy = new Uint8Array(bytes.length);
  for (let i = 0, at = 0; i < parts.length; at += parts[i++]!.length) copy.set(parts[i]!, at);
  new DataView(copy.buffer).setUint32(named, nameLength - 4, true);
  const path = await Deno.makeTempFile({ suffix: ".gguf" });
  try {
    await Deno.writeFile(path, copy);
    using bare = await LlamaModel.load(path);
    assertThrows(() => bare.tokenizer.tokenize("hi"), ChunkKvError);
    assertThrows(() => bare.tokenizer.detokenize([1, 2]), ChunkKvError);
    assertThrows(() => bare.tokenizer.piece(1), ChunkKvError);
    using context = bare.createContext(settings);
    await context.prefill([1, 2, 3]); // tokens are as good as ever
  } finally {
    await Deno.remove(path);
  }
});
