// The evaluating commands with --quick, as somebody tries them first: `deno task test:quick`.
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { methodNames } from "chunkkv";
import { chunkkv } from "../bench/run.ts";

const KEEPS = [0.3, 0.2, 0.1];
const METHODS = methodNames().filter((name) => name !== "full");

interface Row {
  id?: string;
  method: string;
  keep: number;
  reuse: number;
  kl: number;
  nll: number | null;
  score: number | null;
  kept_tokens: number;
  prompt_tokens: number;
}

async function quick(command: string): Promise<{ rows: Row[]; html: string; stdout: string }> {
  const folder = await Deno.makeTempDir();
  try {
    const [json, html] = [`${folder}/rows.json`, `${folder}/report.html`];
    const workers = command === "speed" ? [] : ["--workers", `${navigator.hardwareConcurrency}`];
    const run = await chunkkv([command, "--quick", ...workers, "--json", json, "--html", html]);
    assertEquals(run.code, 0, run.stderr);
    const { rows } = JSON.parse(await Deno.readTextFile(json));
    return { rows, html: await Deno.readTextFile(html), stdout: run.stdout };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

for (const command of ["needle", "longbench", "gsm8k", "jailbreak"]) {
  Deno.test(`${command} --quick holds every method against the full cache`, async () => {
    const { rows, html, stdout } = await quick(command);
    const examples = rows.filter(({ method }) => method === "full");
    assert(examples.length > 0);
    for (const full of examples) {
      const others = rows.filter(({ id, method }) => id === full.id && method !== "full");
      assertEquals(
        others.map(({ method, keep }) => `${method} ${keep}`).sort(),
        KEEPS.flatMap((keep) => METHODS.map((method) => `${method} ${keep}`)).sort(),
      );
      assertEquals([full.kl, full.kept_tokens], [0, full.prompt_tokens]);
      for (const { kl, nll, score, kept_tokens, keep } of others) {
        assert(kl >= 0 && Number.isFinite(kl), `kl ${kl}`);
        assert(nll === null || nll > 0, `nll ${nll}`);
        assert(score !== null && score >= 0 && score <= 1, `score ${score}`);
        // pyramidkv's layers keep the budget on average.
        assert(
          Math.abs(kept_tokens - Math.floor(keep * full.prompt_tokens)) <= 1,
          `${kept_tokens}`,
        );
      }
    }
    for (const method of METHODS) assertStringIncludes(stdout, method);
    assertStringIncludes(html, "<svg");
  });
}

Deno.test("reuse --quick shares among 2, 3 and 5 layers", async () => {
  const { rows, html } = await quick("reuse");
  assertEquals([...new Set(rows.map(({ reuse }) => reuse))].sort(), [1, 2, 3, 5]);
  assertStringIncludes(html, "<svg");
});

Deno.test("speed --quick has every method beside a context that was never longer", async () => {
  const { rows, html } = await quick("speed");
  const timed = rows as unknown as { method: string; decode_tps: number; native_tps: number }[];
  for (const method of METHODS) {
    const row = timed.find((one) => one.method === method);
    assert(row && row.decode_tps > 0 && row.native_tps > 0, method);
  }
  assertStringIncludes(html, "<svg");
});
