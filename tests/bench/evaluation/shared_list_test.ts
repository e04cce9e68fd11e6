import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { SharedList } from "../../../bench/evaluation/shared_list.ts";

Deno.test("each place goes to one worker, whatever their paces", () => {
  const paces = fc.array(fc.nat({ max: 6 }), { maxLength: 200 });
  fc.assert(
    fc.property(fc.nat({ max: 60 }), fc.integer({ min: 1, max: 7 }), paces, (n, w, turns) => {
      const list = new SharedList(n, w);
      const found: number[] = [];
      const take = (worker: number) => {
        const place = list.next(worker);
        if (place !== undefined) found.push(place);
        return place;
      };
      for (const turn of turns) take(turn % w);
      while (take(0) !== undefined);
      assertEquals(found.toSorted((a, b) => a - b), Array.from({ length: n }, (_, i) => i));
      for (let worker = 0; worker < w; worker++) assertEquals(list.next(worker), undefined);
    }),
  );
});

Deno.test("a worker gets neighbours, and half of what is left where it has none", () => {
  const list = new SharedList(12, 2);
  const first = [list.next(0), list.next(0)];
  assertEquals(first, [0, 1]);
  const other = Array.from({ length: 9 }, () => list.next(1));
  assertEquals(other, [6, 7, 8, 9, 10, 11, 4, 5, 3]);
  assertEquals([list.next(0), list.next(0), list.next(1)], [2, undefined, undefined]);
});

Deno.test("more workers than places leave some with nothing", () => {
  const list = new SharedList(1, 3);
  const places = [0, 1, 2].map((worker) => list.next(worker));
  assertEquals(places.filter((place) => place === 0).length, 1);
  assert(places.filter((place) => place === undefined).length === 2);
});
