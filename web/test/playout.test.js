import assert from "node:assert/strict";
import { test } from "node:test";
import { Playout } from "../src/playout.js";

/** Frames every 40 ms from media time 0, arriving `delay(timestamp)` after it is due. */
function play(delay, untilMs) {
  const playout = new Playout();
  const arrivals = [];
  for (let timestamp = 0; timestamp < untilMs; timestamp += 40) arrivals.push([timestamp + delay(timestamp), timestamp]);
  arrivals.sort((a, b) => a[0] - b[0]);
  let next = 0;
  for (let at = 0; at < untilMs + 2000; at += 10) {
    while (next < arrivals.length && arrivals[next][0] <= at) playout.receive(...arrivals[next++]);
    if (at < untilMs) playout.tick(at);
  }
  return playout;
}

test("a steady stream never stalls", () => {
  const playout = play(() => 50, 10_000);
  assert.deepEqual([playout.stalls, playout.stalledMs], [0, 0]);
});

test("lateness within the buffer is no stall", () => {
  assert.equal(play((t) => (t >= 4000 && t < 4200 ? 200 : 50), 10_000).stalls, 0);
});

test("less than 100 ms of emptiness is no stall", () => {
  // 50 + 200 of buffer + 40 until the next frame is due: 330 late leaves it empty for 80 at most.
  assert.equal(play((t) => (t >= 4000 ? 290 : 50), 10_000).stalls, 0);
});

test("a gap of a second is one stall of about 0.8 s", () => {
  const playout = play((t) => (t >= 4000 && t < 5000 ? 5050 - t : 50), 10_000);
  assert.equal(playout.stalls, 1);
  assert.ok(playout.stalledMs > 700 && playout.stalledMs <= 900, String(playout.stalledMs));
});

test("two gaps are two stalls", () => {
  const late = (t) => (t >= 4000 && t < 5000 ? 5050 - t : t >= 8000 && t < 9000 ? 9050 - t : 50);
  assert.equal(play(late, 12_000).stalls, 2);
});

test("a new broadcast keeps the count", () => {
  const playout = play((t) => (t >= 4000 && t < 5000 ? 5050 - t : 50), 10_000);
  playout.reset();
  assert.equal(playout.tick(1e6), false);
  assert.equal(playout.stalls, 1);
});
