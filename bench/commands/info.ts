/**
 * `info`: what there is to work with on this machine.
 *
 * @module
 */
import type { Command } from "commander";
import { describeDevice, libraryPath, libraryVersion, usableIsas } from "chunkkv";
import { llamaEngine, preloadLibraryPath } from "chunkkv/llama-cpp";
import { results, writeJson } from "../report/results.ts";
import { formatTable } from "../report/table.ts";

/** One thing that is there, or why it is not. */
interface InfoRow {
  what: string;
  found: string;
}

function attempt(what: string, find: () => string): InfoRow {
  try {
    return { what, found: find() };
  } catch (error) {
    return { what, found: `none: ${(error as Error).message}` };
  }
}

/** Adds the command. */
export function addInfo(program: Command): void {
  program.command("info")
    .description("library, instruction set, CUDA device and engine on this machine")
    .option("--json <FILE>", "write the rows as JSON too")
    .action(async (options: { json?: string }) => {
      const rows = [
        attempt("library", () => `${libraryVersion()}, ${libraryPath()}`),
        attempt("instruction sets", () => usableIsas().join(", ")),
        attempt("cuda", () => describeDevice("cuda")),
        await engineRow(),
        attempt("preloaded library", preloadLibraryPath),
      ];
      console.log(formatTable(rows, [
        { heading: "what", text: (row) => row.what },
        { heading: "found", text: (row) => row.found },
      ]));
      if (options.json) await writeJson(options.json, results("info", null, { ...options }, rows));
    });
}

async function engineRow(): Promise<InfoRow> {
  try {
    const { version, path } = await llamaEngine();
    return { what: "llama.cpp", found: `${version}, ${path}` };
  } catch (error) {
    return { what: "llama.cpp", found: `none: ${(error as Error).message}` };
  }
}
