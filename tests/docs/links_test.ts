/**
 * Links and named files in the project's Markdown lead somewhere.
 *
 * @module
 */
import { dirname, join, normalize } from "node:path";

import { assertEquals } from "@std/assert";

import { exists, repoRoot } from "../../tools/paths.ts";
import { markdownFiles, readText } from "./markdown.ts";

/** A text without its code blocks. */
function prose(text: string): string {
  return text.replaceAll(/^```.*?^```$/gms, "");
}

/** A heading's anchor, as GitHub makes it. */
function anchor(heading: string): string {
  return heading.toLowerCase().replaceAll(/[^\p{L}\p{N}\s_-]/gu, "").trim().replaceAll(/\s/g, "-");
}

function anchors(path: string): Set<string> {
  const headings = prose(readText(path)).matchAll(/^#+ (.*)$/gm);
  return new Set([...headings].map(([, heading = ""]) => anchor(heading)));
}

function isBroken(from: string, target: string): boolean {
  if (/^[a-z]+:/.test(target)) return false;
  const [file = "", hash] = target.split("#");
  const path = file === "" ? from : normalize(join(dirname(from), file));
  if (!exists(join(repoRoot(), path))) return true;
  return hash !== undefined && path.endsWith(".md") && !anchors(path).has(hash);
}

Deno.test("every relative link of a Markdown file leads to a file, and a heading if it names one", () => {
  const files = markdownFiles();
  assertEquals(files.includes("README.md") && files.includes("docs/paged.md"), true);
  const links = files.flatMap((from) =>
    [...prose(readText(from)).matchAll(/\]\(([^)\s]+)[^)]*\)/g)]
      .map(([, target = ""]) => ({ from, target }))
  );
  assertEquals(links.length > 5, true, `${links.length} links`);
  assertEquals(links.filter(({ from, target }) => isBroken(from, target)), []);
});

Deno.test("every guide is in the index of docs/, and files named from the root are there", () => {
  const guides = markdownFiles("docs").filter((path) => path !== "docs/README.md");
  const index = readText("docs/README.md");
  assertEquals(guides.filter((path) => !index.includes(`](${path.slice("docs/".length)})`)), []);
  const named = [...guides, "README.md", "CONTRIBUTING.md"].flatMap((from) =>
    [
      ...prose(readText(from)).matchAll(
        /`((?:docs|csrc|bindings|tests|bench|tools|ffi)\/[\w./-]+\.(?:ts|c|h|cu|cuh|md|py|def|sh|txt))`/g,
      ),
    ]
      .map(([, path = ""]) => ({ from, path }))
  );
  assertEquals(named.length > 10, true, `${named.length} files`);
  assertEquals(named.filter(({ path }) => !exists(join(repoRoot(), path))), []);
});
