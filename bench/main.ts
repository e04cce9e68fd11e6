/**
 * The command line: `deno task chunkkv COMMAND`.
 *
 * Exit codes: 0 done, 1 failed, 2 bad usage.
 *
 * @module
 */
import { Command, CommanderError } from "commander";
import { VERSION } from "./version.ts";
import { addDemo } from "./commands/demo.ts";
import { addInfo } from "./commands/info.ts";
import { UsageError } from "./usage.ts";

function program(): Command {
  const chunkkv = new Command("chunkkv")
    .description("KV-cache compression by semantic chunks, inside real inference engines")
    .version(VERSION)
    .showHelpAfterError()
    .exitOverride();
  addDemo(chunkkv);
  addInfo(chunkkv);
  for (const command of chunkkv.commands) command.exitOverride().showHelpAfterError();
  return chunkkv;
}

async function main(args: string[]): Promise<number> {
  try {
    await program().parseAsync(args, { from: "user" });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (error instanceof UsageError) {
      console.error(`error: ${error.message}`);
      return 2;
    }
    console.error(`error: ${error instanceof Error ? error.message : error}`);
    return 1;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
