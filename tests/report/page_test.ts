// Reports in a real browser: `deno task test:report`.
import process from "node:process";
import { type BrowserContext, chromium, type Page } from "playwright-core";
import { assert, assertEquals } from "@std/assert";
import { renderHtml } from "../../bench/report/html.ts";
import type { Results } from "../../bench/report/results.ts";
import { DEPTHS, KEEPS, LENGTHS, longbenchResults, METHODS, needleResults } from "./rows.ts";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const WIDTHS = [400, 1280];

/** What a page did that it should not have. */
interface Complaints {
  console: string[];
  requests: string[];
}

/** Opens the report of `results` in a browser of its own, and gives it to `look`. */
async function withPage(
  results: Results<unknown>,
  look: (page: Page, complaints: Complaints) => Promise<void>,
): Promise<void> {
  const executablePath = process.env["CHUNKKV_CHROMIUM"];
  // A skip would read as passed.
  if (!executablePath) throw new Error("Expected Chromium's path in CHUNKKV_CHROMIUM");
  const folder = await Deno.makeTempDir();
  let browser: BrowserContext | undefined;
  try {
    const path = `${folder}/report.html`;
    await Deno.writeTextFile(path, await renderHtml(results));
    browser = await chromium.launchPersistentContext(`${folder}/profile`, {
      executablePath,
      headless: true,
      args: FLAGS,
    });
    const page = await browser.newPage();
    const complaints: Complaints = { console: [], requests: [] };
    page.on("console", (message) => complaints.console.push(message.text()));
    page.on("pageerror", (error) => complaints.console.push(error.message));
    page.on("request", (request) => complaints.requests.push(request.url()));
    await page.goto(`file://${path}`);
    assertEquals(complaints.requests.shift(), `file://${path}`);
    await look(page, complaints);
  } finally {
    await browser?.close();
    await Deno.remove(folder, { recursive: true });
  }
}

/** Elements of a selector that are drawn: wider and higher than nothing. */
async function drawn(page: Page, selector: string): Promise<number> {
  return await page.locator(selector).evaluateAll((elements) =>
    elements.filter((element) => {
      const { width, height } = element.getBoundingClientRect();
      return width > 0 && height > 0;
    }).length
  );
}

async function overflow(page: Page): Promise<number> {
  return await page.evaluate(() =>
    // deno-lint-ignore no-explicit-any -- the browser's document
    (globalThis as any).document.documentElement.scrollWidth - (globalThis as any).innerWidth
  );
}

async function checkPage(page: Page, complaints: Complaints): Promise<void> {
  for (const colorScheme of ["light", "dark"] as const) {
    for (const width of WIDTHS) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 900 });
      await page.locator("details").evaluateAll((all) =>
        all.forEach((element) => element.setAttribute("open", ""))
      );
      assert(await overflow(page) <= 0, `${width} px: wider by ${await overflow(page)}`);
    }
    const [text, ground] = await page.locator("body").evaluate((body) => {
      // deno-lint-ignore no-explicit-any -- the browser's function
      const { color, backgroundColor } = (globalThis as any).getComputedStyle(body);
      return [color, backgroundColor].map((value: string) => Number(/\d+/.exec(value)?.[0]));
    });
    const words = page.locator(".role-axis-label text, .role-axis-title text");
    const fills = await words.evaluateAll((all) => // deno-lint-ignore no-explicit-any -- the browser's function
    [...new Set(all.map((one) => (globalThis as any).getComputedStyle(one).fill))]);
    assertEquals(fills.map((fill) => Number(/\d+/.exec(fill)?.[0])), [text]);
    const isDark = text! > 200 && ground! < 50;
    const isLight = text! < 50 && ground! > 200;
    assert(colorScheme === "dark" ? isDark : isLight, `${colorScheme}: ${text} on ${ground}`);
  }
  assertEquals(complaints, { console: [], requests: [] });
  assertEquals(await page.locator("html").getAttribute("lang"), "en");
  assert((await page.title()).startsWith("chunkkv "));
  const figures = await page.locator("figure").count();
  assertEquals(await page.locator("figure > figcaption").count(), figures);
  assertEquals(
    await page.locator("figure [role=img][aria-label]:not([aria-label=''])").count(),
    figures,
  );
  assertEquals(await page.locator("table > caption").count(), await page.locator("table").count());
  assertEquals(await page.locator("script, iframe, img, link[href^=http]").count(), 0);
}

Deno.test("a needle report has its heat maps, curves with intervals, and all rows", async () => {
  const results = needleResults();
  await withPage(results, async (page, complaints) => {
    await checkPage(page, complaints);
    const cases = 1 + METHODS.length * KEEPS.length;
    const plots = page.locator("figure");
    assertEquals(await plots.count(), 3 + cases);
    assertEquals(await drawn(page, ".mark-rect path"), cases * LENGTHS.length * DEPTHS.length);
    const score = plots.first();
    const points = METHODS.length * KEEPS.length;
    assertEquals(await score.locator(".mark-symbol.role-mark path").count(), points);
    // Intervals, and the dashed line of the full cache.
    assertEquals(await score.locator(".mark-rule.role-mark line").count(), points + 1);
    assertEquals(await score.locator(".mark-line.role-mark path").count(), METHODS.length);
    assertEquals(await page.locator("table").first().locator("tbody tr").count(), cases);
    assertEquals(await page.locator("details tbody tr").count(), results.rows.length);
    const code = await page.locator("code").textContent();
    assert(code?.startsWith("deno task chunkkv needle --lengths 1000,2000,4000"), code ?? "none");
    assert(code?.includes("--data 'my essays/'"), code ?? "none");
    assert((await page.locator("dl").textContent())?.includes(results.machine.cpu));
  });
});

Deno.test("a LongBench report has the mean over tasks and a plot a task", async () => {
  await withPage(longbenchResults(), async (page, complaints) => {
    await checkPage(page, complaints);
    assertEquals(await page.locator("figcaption").allTextContents(), [
      "Score, mean over tasks",
      "Divergence from the full cache",
      "Reference answer",
      "hotpotqa",
      "gov_report",
      "trec",
    ]);
    const cases = 1 + METHODS.length * KEEPS.length;
    assertEquals(await page.locator("table").first().locator("tbody tr").count(), 4 * cases);
  });
});

Deno.test("a report on reuse has the similarity of layers, a line a case", async () => {
  const rows = [1, 2].flatMap((reuse) =>
    ["a", "b"].map((id, i) => ({
      ...{ id, task: "needle", method: "chunkkv", keep: 0.2, reuse, score: i, nll: 1, kl: 0.1 },
      similarity: [0.5, 0.6, 0.1 * i],
    }))
  );
  await withPage({ ...needleResults(), command: "reuse", rows }, async (page, complaints) => {
    await checkPage(page, complaints);
    const layers = page.locator("figure", { hasText: "Similarity of neighbouring layers" });
    assertEquals(await layers.locator(".mark-line.role-mark path").count(), 2);
    assertEquals(await layers.locator(".mark-symbol.role-mark path").count(), 6);
    const first = layers.locator(".mark-symbol.role-mark path").nth(2);
    assertEquals(
      await first.getAttribute("aria-label"),
      "layer: 3; Jaccard similarity: 0.05; name: chunkkv 20%",
    );
  });
});

Deno.test("a report of speeds has bars, and what rows say stays text", async () => {
  const answer = "<script>alert(1)</script><img src=x onerror=alert(2)> & " + "long ".repeat(200);
  const rows = ["full", "chunkkv"].map((method, i) => ({
    method,
    keep: i === 0 ? 1 : 0.1,
    decode_tps: 30 + 40 * i,
    kv_mib: 90 - 80 * i,
    prompt_tokens: 4000,
    answer,
    nested: { is: "left out" },
  }));
  const results = { ...needleResults(), command: "speed", rows };
  await withPage(results, async (page, complaints) => {
    await checkPage(page, complaints);
    assertEquals(await drawn(page, ".mark-rect path"), 4);
    const names = await page.locator("figure").first().locator(".role-axis-label text")
      .allTextContents();
    assert(names.includes("chunkkv 10% of 4000"), names.join());
    assertEquals(await page.locator("thead th").allTextContents(), [
      "method",
      "keep",
      "decode_tps",
      "kv_mib",
      "prompt_tokens",
      "answer",
    ]);
    assertEquals(await page.locator("tbody td").last().textContent(), answer);
  });
});
