// A chat in node-llama-cpp: node chat.mjs PACKAGE MODEL TEXT
//
// Reads the text, answers a question about it and then another one, and prints as JSON the answers
// with the number of tokens that the sequence then had read and generated.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";

const [folder, modelPath, textFile] = process.argv.slice(2);
const { getLlama, LlamaChatSession } = await import(
  pathToFileURL(join(folder, "dist", "index.js")).href
);

const llama = await getLlama({
  gpu: false,
  build: "never",
  skipDownload: true,
  maxThreads: 1,
  logLevel: "error",
  progressLogs: false,
});
const model = await llama.loadModel({ modelPath });
const context = await model.createContext({
  contextSize: 2048,
  batchSize: 2048,
  threads: 1,
  flashAttention: true,
});
const sequence = context.getSequence();
const session = new LlamaChatSession({
  contextSequence: sequence,
  systemPrompt: "Answer briefly.",
});
const text = readFileSync(textFile, "utf8");

const turns = [];
for (const question of [`${text}\n\nWho tells this story?`, "And who is his friend?"]) {
  const { usedInputTokens: before } = sequence.tokenMeter.getState();
  const answer = await session.prompt(question, { maxTokens: 16, temperature: 0 });
  const { usedInputTokens: after } = sequence.tokenMeter.getState();
  turns.push({ answer, read: after - before, tokens: sequence.nextTokenIndex });
}
console.log(JSON.stringify({ release: llama.llamaCppRelease.release, turns }));
await llama.dispose();
