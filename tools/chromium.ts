/**
 * A real browser for the tests of HTML reports.
 *
 * @module
 */
import process from "node:process";

import { capture, ProcessError, which } from "./process.ts";

const NAMES = ["chromium", "chromium-browser", "google-chrome"];

/**
 * The path of Chromium: from `CHUNKKV_CHROMIUM` or PATH, or else installed with the system's apt-get,
 * which only root can.
 *
 * @throws {Error} If there is none and it cannot be installed.
 */
export async function ensureChromium(): Promise<string> {
  const there = findChromium();
  if (there !== null) return there;
  if (process.env["CHUNKKV_CHROMIUM"]) throw new Error(NOT_FOUND);
  try {
    console.log("Installing Chromium with apt-get, once ...");
    const env = { DEBIAN_FRONTEND: "noninteractive" };
    await capture(["apt-get", "update", "-qq"], { env });
    await capture(["apt-get", "install", "-y", "-qq", "--no-install-recommends", NAMES[0]!], {
      env,
    });
  } catch (cause) {
    if (!(cause instanceof ProcessError)) throw cause;
    throw new Error(`${NOT_FOUND}, and apt-get could not install it: ${cause.message}`, { cause });
  }
  const installed = findChromium();
  if (installed === null) throw new Error(NOT_FOUND);
  return installed;
}

const NOT_FOUND = "The pages were NOT tested. Expected Chromium in PATH, or its path in " +
  "CHUNKKV_CHROMIUM, but found neither";

function findChromium(): string | null {
  const named = process.env["CHUNKKV_CHROMIUM"];
  if (named) return which(named);
  return NAMES.map(which).find((path) => path !== null) ?? null;
}
