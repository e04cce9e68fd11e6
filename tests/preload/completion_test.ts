import { assert, assertEquals } from "@std/assert";
import { preloadEnvironment } from "chunkkv/llama-cpp";
import { storyText } from "../../bench/server/server.ts";
import { llamaProgram } from "../../tools/llama_server.ts";
import { smolLm2Path } from "../../tools/paths.ts";

/** Runs llama-completion on a text in a file; it hands its prompt over in batches without flags. */
async function complete(folder: string, env: Record<string, string>) {
  const args = ["-m", smolLm2Path(), "-f", `${folder}/text`, "-n", "16", "--temp", "0"];
  const { code, stdout, stderr } = await new Deno.Command(llamaProgram("llama-completion"), {
    args: [...args, "-no-cnv", "--no-display-prompt", "-c", "1024", "-b", "128", "-t", "1"],
    env: { ...env, LLAMA_ARG_CTX_CHECKPOINTS: "0" },
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  const said = decoder.decode(stderr);
  assertEquals(code, 0, said);
  return { text: decoder.decode(stdout).trim(), said };
}

Deno.test("llama-completion: the whole prompt is compressed, once, when its last batch is in", async () => {
  const folder = await Deno.makeTempDir({ prefix: "chunkkv-" });
  try {
    await Deno.writeTextFile(`${folder}/text`, storyText(2000));
    const stats = `${folder}/stats`;
    const settings = { minTokens: 256, threads: 1, stats };
    const stock = await complete(folder, {});
    const all = await complete(folder, preloadEnvironment({ ...settings, keep: 1 }));
    assertEquals(all.text, stock.text);
    const part = await complete(folder, preloadEnvironment({ ...settings, keep: 0.3 }));
    assert(part.text.length > 0, part.said);
    const lines = (await Deno.readTextFile(stats)).trimEnd().split("\n");
    assertEquals(lines.length, 1);
    const { before, after, positions } = JSON.parse(lines[0] ?? "");
    const read = Number(/prompt eval time =.*?\/\s*(\d+) tokens/.exec(stock.said)?.[1]);
    assertEquals([before, positions, after], [read, read, Math.floor(0.3 * read)]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
