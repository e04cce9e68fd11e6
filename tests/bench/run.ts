/**
 * Runs the command line as a user does, through its task.
 *
 * @module
 */
import { repoRoot } from "../../tools/paths.ts";

/** What a run printed and how it ended. */
export interface Run {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs `deno task chunkkv` with `args`. */
export async function chunkkv(args: string[], env: Record<string, string> = {}): Promise<Run> {
  const command = new Deno.Command(Deno.execPath(), {
    args: ["task", "--quiet", "chunkkv", ...args],
    cwd: repoRoot(),
    env: { NO_COLOR: "1", ...env },
  });
  const { code, stdout, stderr } = await command.output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}
