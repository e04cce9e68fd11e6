import { assert, assertEquals } from "@std/assert";

import { countDifferences, soak } from "../../bench/server/soak.ts";

Deno.test("mixed requests, four at a time, are all served", async () => {
  const { requests, outcomes, compactions, rss, files, latency } = await soak({ requests: 60 });
  assert(requests >= 60);
  assert((outcomes["turn"] ?? 0) > 10 && (outcomes["new"] ?? 0) > 2, JSON.stringify(outcomes));
  assert(compactions > 5, `${compactions} compactions`);
  assert(rss.length > 10 && rss.every((mib) => mib > 50), `${rss} MiB`);
  // A socket for each of four users, and what the server has open anyway.
  assert(files.length === rss.length && Math.max(...files) < files[0]! + 8, `${files} files`);
  assert(latency.start.requests > 5 && latency.end.p99 >= latency.end.p50);
});

Deno.test("mixed requests with keep 1 are answered as by the stock server", async () => {
  assertEquals(await countDifferences(12), 0);
});
