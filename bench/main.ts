/**
 * The command line: `deno task chunkkv COMMAND`.
 *
 * Exit codes: 0 done, 1 failed, 2 bad usage.
 *
 * @module
 */
import process from "node:process";
import { Command, CommanderError } from "commander";
import { VERSION } from "./version.ts";
import { ChunkKvError } from "chunkkv";
import { addDemo } from "./commands/demo.ts";
import { addGsm8k } from "./commands/gsm8k.ts";
import { addInfo } from "./commands/info.ts";
import { addJailbreak } from "./commands/jailbreak.ts";
import { addKernels } from "./commands/kernels.ts";
import { addLongBench } from "./commands/longbench.ts";
import { addNeedle } from "./commands/needle.ts";
import { addReuse } from "./commands/reuse.ts";
import { addRun } from "./commands/run.ts";
import { addSpeed } from "./commands/speed.ts";
import { checkReportPath } from "./report/results.ts";
import { UsageError } from "./usage.ts";

function program(): Command {
  const chunkkv = new Command("chunkkv")
    .description("KV-cache compression by semantic chunks, inside real inference engines")
    .version(VERSION)
    .showHelpAfterError()
    .enablePositionalOptions()
    .exitOverride();
  addDemo(chunkkv);
  addInfo(chunkkv);
  addKernels(chunkkv);
  addNeedle(chunkkv);
  addLongBench(chunkkv);
  addGsm8k(chunkkv);
  addJailbreak(chunkkv);
  addReuse(chunkkv);
  addSpeed(chunkkv);
  addRun(chunkkv);
  for (const command of chunkkv.commands) command.exitOverride().showHelpAfterError();
  chunkkv.hook("preAction", async (_, command) => {
    const { json, html } = command.opts<{ json?: string; html?: string }>();
    if (json !== undefined) await checkReportPath(json, "--json");
    if (html !== undefined) await checkReportPath(html, "--html");
  });
  return chunkkv;
}

async function main(args: string[]): Promise<number> {
  try {
    await program().parseAsync(args, { from: "user" });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (error instanceof UsageError) {
      console.error(`error: ${error.message}`);
      return 2;
    }
    console.error(`error: ${reason(error)}`);
    return 1;
  }
}

/** Why it failed; of what was stopped, who stopped it. */
function reason(error: unknown): unknown {
  const stopped = error instanceof ChunkKvError && error.code === "cancelled";
  const shown = stopped ? error.cause : error;
  return shown instanceof Error ? shown.message : shown;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
