import assert from "node:assert/strict";
import { test } from "node:test";
import { arc, middleMeridian, points, projection, roomed, wrapped } from "../src/map_layout.js";
import { drawnLinks, linkState, ms, newest, nodeState, percent, rate, streamTrees } from "../src/map_model.js";

const FRA = { id: "fra", region: "eu", latitude: 50, longitude: 9 };
const HKG = { id: "hkg", region: "hk", latitude: 22, longitude: 114 };
const GRU = { id: "gru", region: "br", latitude: -23, longitude: -47 };
const link = (sender, receiver, more = {}) => ({
  sender, receiver, rtt_ms: 20, jitter_ms: 1, loss_ratio: 0, usable: true, age_s: 0.5, ...more,
});

test("the map is cut where nothing stands", () => {
  assert.equal(middleMeridian([]), 0);
  // Tokyo and Los Angeles: the Pacific is the middle, not the edge.
  assert.ok(Math.abs(wrapped(middleMeridian([140, -118]) - -169)) < 1e-9);
  assert.equal(middleMeridian([10, 10]), 10);
});

test("north is up, east is right, and all of it is in the box", () => {
  for (const [width, height] of [[800, 600], [360, 300], [1600, 200]]) {
    const project = projection([FRA, HKG, GRU], width, height);
    const found = points([FRA, HKG, GRU], project, 10);
    assert.ok(found.get("gru").x < found.get("fra").x && found.get("fra").x < found.get("hkg").x);
    assert.ok(found.get("fra").y < found.get("hkg").y && found.get("hkg").y < found.get("gru").y);
    for (const { x, y } of found.values()) assert.ok(x > 0 && x < width && y > 0 && y < height);
  }
});

test("relays of one place stand apart, and those of no known place below", () => {
  const many = Array.from({ length: 40 }, (_, index) => ({ ...FRA, id: `fra-${index}` }));
  const nowhere = { id: "x", region: "?", latitude: null, longitude: null };
  const found = [...points([...many, HKG, nowhere], projection([...many, HKG], 900, 700), 7).values()];
  for (const [index, one] of found.entries()) {
    for (const other of found.slice(index + 1)) assert.ok(Math.hypot(one.x - other.x, one.y - other.y) > 7);
  }
  assert.ok(points([nowhere], projection([], 900, 700), 7).get("x").y > 650);
});

test("two directions have two arcs", () => {
  const [one, other] = [arc({ x: 0, y: 0 }, { x: 200, y: 0 }, 10), arc({ x: 200, y: 0 }, { x: 0, y: 0 }, 10)];
  assert.ok(one.spots[0].y > 5 && other.spots[0].y < -5);
});

test("labels never lie on each other, but for names", () => {
  const label = (x, more) => ({ text: "abcdefgh", size: 10, spots: [{ x, y: 50 }], ...more });
  assert.equal(roomed([label(100), label(110), label(300)], 400).length, 2);
  assert.equal(roomed([label(100), label(110, { always: true })], 400).length, 2);
  const beside = { text: "abcdefgh", size: 10, always: true, spots: [{ x: 390, y: 9, anchor: "start" }, { x: 390, y: 30 }] };
  assert.equal(roomed([beside], 400)[0].y, 30);
});

test("states", () => {
  const node = { condition: "alive", connected: true, stage: "serving" };
  assert.equal(nodeState(node), "serving");
  assert.equal(nodeState({ ...node, stage: "drained" }), "draining");
  assert.equal(nodeState({ ...node, stage: "cordoned" }), "cordoned");
  assert.equal(nodeState({ ...node, connected: false }), "detached");
  assert.equal(nodeState({ ...node, condition: "dead" }), "dead");
  assert.equal(linkState(link("a", "b")), "good");
  assert.equal(linkState(link("a", "b", { loss_ratio: 0.02 })), "lossy");
  assert.equal(linkState(link("a", "b", { age_s: 9 })), "stale");
  assert.equal(linkState(link("a", "b", { usable: false, loss_ratio: 1 })), "down");
});

test("too many links become the worst from region to region", () => {
  const links = [link("fra", "hkg"), link("hkg", "fra", { usable: false }), link("fra", "fra2"), link("fra2", "hkg", { loss_ratio: 0.5, rtt_ms: 9 })];
  const nodes = [FRA, HKG, { ...FRA, id: "fra2" }];
  assert.equal(drawnLinks(links, nodes).links.length, 4);
  const found = drawnLinks(links, nodes, 3);
  assert.ok(found.byRegion);
  assert.deepEqual(found.links.map(({ key, state, count, rttMs }) => [key, state, count, rttMs]), [
    ["hk>eu", "down", 1, 20],
    ["eu>hk", "lossy", 2, 9],
  ]);
  assert.equal(drawnLinks([link("fra", "gone")], nodes).links.length, 0);
});

test("streams are trees, whatever relays say", () => {
  const row = (relay, source, subscribers = 1) => ({ namespace: "live/a", relay, source, tracks: 1, subscribers, bytes_per_s: 10 });
  const [found] = streamTrees({ streams: [row("c", "b", 5), row("b", "a"), row("a", "publisher"), row("d", "lost")] });
  assert.deepEqual(found.lines.map(({ relay, depth }) => [relay, depth]), [["a", 0], ["b", 1], ["c", 2], ["d", 0]]);
  assert.equal(found.subscribers, 8);
  assert.deepEqual(found.edges, ["b>c", "a>b"]);
  // Two that name each other end nothing, and neither is left out.
  const [round] = streamTrees({ streams: [row("a", "b"), row("b", "a")] });
  assert.deepEqual(round.lines.map(({ relay }) => relay).sort(), ["a", "b"]);
  const [unsaid] = streamTrees({ streams: [row("a", ""), row("z", "publisher")] });
  assert.deepEqual(unsaid.lines.map(({ relay, depth }) => [relay, depth]), [["z", 0], ["a", 0]]);
  assert.deepEqual(streamTrees({ streams: [] }), []);
  assert.deepEqual(streamTrees(null), []);
  const [older] = streamTrees([{ namespace: "live/a", origin: "hkg", region: "hk", hop: 1, carriers: 3 }]);
  assert.equal(older.lines[0].carriers, 3);
  assert.ok(!older.told);
});

test("events are kept once, newest first, and not for ever", () => {
  const event = (number) => ({ number });
  assert.deepEqual(newest([event(3), event(1)], [event(3), event(4)], 2), [event(4), event(3)]);
});

test("figures", () => {
  assert.deepEqual([ms(1.55), ms(183.4), ms(null)], ["1.6 ms", "183 ms", "–"]);
  assert.deepEqual([percent(0), percent(0.00001), percent(0.034), percent(0.5)], ["0 %", "<0.01 %", "3.4 %", "50 %"]);
  assert.deepEqual([rate(1000), rate(9e6), rate(1e9)], ["8 kbit/s", "72.0 Mbit/s", "8.0 Gbit/s"]);
});
