import assert from "node:assert/strict";
import { test } from "node:test";
import { Choice } from "../src/choice.js";

const LADDER = [
  { name: "low", bitrateKbps: 250 },
  { name: "high", bitrateKbps: 1200 },
];
const FRAME_MS = 40;

/** Play `seconds` of frames through a link; returns the switches as [time, name]. */
function play(choice, { from, seconds, linkKbps, backlogMs = 0, ladder = LADDER }) {
  const switches = [];
  let late = backlogMs;
  for (let frame = 0; frame < (seconds * 1000) / FRAME_MS; frame++) {
    const due = from + frame * FRAME_MS;
    const { bitrateKbps } = ladder.find((rendition) => rendition.name === choice.name);
    // A key frame a second, ten times the size of the others.
    const unit = (bitrateKbps * 1000) / 8 / (25 - 1 + 10);
    const bytes = frame % 25 === 0 ? 10 * unit : unit;
    const sendMs = (bytes * 8) / linkKbps;
    late = Math.max(sendMs, late + sendMs - FRAME_MS);
    const name = choice.receive(due + late, late, bytes);
    if (name) {
      switches.push([due + late - from, name]);
      late = 0; // what was under way of the old rendition is cancelled
    }
  }
  return switches;
}

test("a wide link keeps the highest rendition", () => {
  const choice = new Choice(LADDER, "high");
  assert.deepEqual(play(choice, { from: 0, seconds: 60, linkKbps: 20_000 }), []);
  assert.equal(choice.name, "high");
});

test("goes down within a second when the link narrows", () => {
  const choice = new Choice(LADDER, "high");
  play(choice, { from: 0, seconds: 10, linkKbps: 20_000 });
  const switches = play(choice, { from: 10_000, seconds: 5, linkKbps: 600 });
  assert.equal(switches[0][1], "low");
  assert.ok(switches[0][0] < 900, `took ${switches[0][0]} ms`);
});

test("stays down while the link is narrow, without trying again and again", () => {
  const choice = new Choice(LADDER, "high");
  play(choice, { from: 0, seconds: 10, linkKbps: 20_000 });
  const switches = play(choice, { from: 10_000, seconds: 60, linkKbps: 600 });
  assert.equal(switches.length, 1, JSON.stringify(switches));
});

test("goes up within ten seconds when the link widens", () => {
  const choice = new Choice(LADDER, "high");
  play(choice, { from: 0, seconds: 5, linkKbps: 20_000 });
  play(choice, { from: 5_000, seconds: 30, linkKbps: 600 });
  assert.equal(choice.name, "low");
  const switches = play(choice, { from: 35_000, seconds: 20, linkKbps: 20_000 });
  assert.equal(switches.length, 1, JSON.stringify(switches));
  assert.equal(switches[0][1], "high");
  assert.ok(switches[0][0] < 10_000, `took ${switches[0][0]} ms`);
});

test("silence counts as lateness", () => {
  const choice = new Choice(LADDER, "high");
  choice.receive(0, 0, 800);
  assert.equal(choice.tick(2000, 1900), undefined);
  assert.equal(choice.tick(2400, 1900), "low");
});

test("the lowest rendition has nowhere to go", () => {
  const choice = new Choice(LADDER, "low");
  choice.receive(0, 0, 800);
  assert.equal(choice.receive(5000, 2000, 800), undefined);
  assert.equal(choice.name, "low");
});

test("the first frames come late and in a burst, and say nothing", () => {
  const choice = new Choice(LADDER, "high");
  for (let at = 0; at < 1400; at += 100) assert.equal(choice.receive(at, 400, 800), undefined);
  assert.equal(choice.tick(1400, 900), undefined);
});

test("after a switch the new rendition gets time to catch up", () => {
  const choice = new Choice(LADDER, "high");
  choice.receive(0, 0, 800);
  assert.equal(choice.receive(5000, 2000, 800), "low");
  assert.equal(choice.receive(5100, 2000, 800), undefined);
});

test("a corrected ladder does not begin the wait anew", () => {
  const choice = new Choice(LADDER, "low");
  let name;
  for (let at = 0; at < 6000 && !name; at += FRAME_MS) {
    if (at % 1000 === 0) choice.update(LADDER.map((rendition) => ({ ...rendition })), "low");
    name = choice.receive(at, 2, at % 1000 === 0 ? 8000 : 800);
  }
  assert.equal(name, "high");
});

test("a step up that went wrong waits for a link that shows more", () => {
  const ladder = [
    { name: "low", bitrateKbps: 130 },
    { name: "high", bitrateKbps: 430 },
  ];
  const choice = new Choice(ladder, "high");
  play(choice, { from: 0, seconds: 5, linkKbps: 20_000, ladder });
  const narrow = play(choice, { from: 5_000, seconds: 40, linkKbps: 600, ladder }).map(([, name]) => name);
  assert.deepEqual(narrow, ["low", "high", "low"]);
  const [[took, name]] = play(choice, { from: 45_000, seconds: 15, linkKbps: 20_000, ladder });
  assert.equal(name, "high");
  assert.ok(took < 10_000, `took ${took} ms`);
});
