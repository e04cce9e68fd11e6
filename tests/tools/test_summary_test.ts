import { assertEquals } from "@std/assert";

import { readSummary, sum, summaryLine } from "../../tools/test_summary.ts";

Deno.test("readSummary() reads deno's line, with steps, ignored tests and colours", () => {
  const output =
    "running 3 tests\n\n\x1b[32mok\x1b[0m | 12 passed (3 steps) | 0 failed | 2 ignored (4s)\n";
  assertEquals(readSummary(output, 0), { passed: 12, failed: 0, skipped: 2 });
});

Deno.test("readSummary() reads deno's line of a failed run", () => {
  const output = "FAILED | 3 passed | 2 failed (10ms)\n\nerror: Test failed\n";
  assertEquals(readSummary(output, 1), { passed: 3, failed: 2, skipped: 0 });
});

Deno.test("readSummary() reads the plain line, and the last one where there are more", () => {
  assertEquals(readSummary("1 passed, 1 failed\n7 passed, 0 failed\n", 0).passed, 7);
  assertEquals(readSummary("5 passed, 0 failed, 4 skipped\r\n", 0).skipped, 4);
});

Deno.test("readSummary() reads pytest's line", () => {
  const output = "== 1 failed, 16 passed, 3 skipped, 14 warnings in 197.08s (0:03:17) ==\n";
  assertEquals(readSummary(output, 1), { passed: 16, failed: 1, skipped: 3 });
  assertEquals(readSummary("6 passed in 4.31s\n", 0), { passed: 6, failed: 0, skipped: 0 });
  assertEquals(readSummary("= 2 passed, 2 errors in 1.00s =\n", 1).failed, 2);
  assertEquals(readSummary("= 4 deselected in 1.00s =\n", 5).failed, 1);
});

Deno.test("readSummary() counts a program that died as a failure", () => {
  assertEquals(readSummary("7 passed, 0 failed\n", 139), { passed: 7, failed: 1, skipped: 0 });
  assertEquals(readSummary("Segmentation fault", 139), { passed: 0, failed: 1, skipped: 0 });
});

Deno.test("readSummary() counts a run without tests as a failure", () => {
  assertEquals(readSummary("ok | 0 passed | 0 failed (0ms)\n", 0).failed, 1);
  assertEquals(readSummary("", 0).failed, 1);
});

Deno.test("readSummary() does not take a test's own words for a summary", () => {
  assertEquals(readSummary("said: 9 passed, 0 failed of them\n", 0).passed, 0);
});

Deno.test("sum() and summaryLine() give the line that ends a run", () => {
  const a = { passed: 2, failed: 1, skipped: 0 };
  assertEquals(summaryLine(sum([a, a])), "4 passed, 2 failed");
  assertEquals(summaryLine({ ...a, skipped: 3 }), "2 passed, 1 failed, 3 skipped");
  assertEquals(summaryLine(sum([])), "0 passed, 0 failed");
});
