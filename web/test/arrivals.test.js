import assert from "node:assert/strict";
import { test } from "node:test";
import { Arrivals } from "../src/arrivals.js";

test("lateness counts from the quickest frame of the last 20 s", () => {
  const arrivals = new Arrivals();
  assert.equal(arrivals.receive(1000, 900, 10), 0);
  assert.equal(arrivals.receive(1100, 950, 10), 50);
  assert.equal(arrivals.receive(1150, 1060, 10), 0);
  assert.equal(arrivals.baseline, 90);
});

test("an old baseline is forgotten", () => {
  const arrivals = new Arrivals();
  for (let at = 0; at < 60_000; at += 40) arrivals.receive(at + (at < 20_000 ? 50 : 250), at, 10);
  assert.equal(arrivals.baseline, 250);
});

test("bitrate is what came in the last second", () => {
  const arrivals = new Arrivals();
  for (let at = 0; at < 3000; at += 100) arrivals.receive(at, at, 1000);
  assert.ok(Math.abs(arrivals.bitrate(2900) - 88) < 9);
  assert.equal(arrivals.bitrate(10_000), 0);
});
