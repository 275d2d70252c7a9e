import assert from "node:assert/strict";
import { test } from "node:test";
import { diagnose, problems } from "../src/problems.js";

const OFFERED = ["moqt-16"];
const attempt = (fields) => diagnose({ tookMs: 20, host: "relay.example", offered: OFFERED, ...fields }).kind;

test("silence is UDP that does not get through", () => assert.equal(attempt({ tookMs: 3000 }), "no-udp"));
test("a quick failure is a refusal", () => assert.equal(attempt({}), "refused"));
test("a session without one of our protocols is a version mismatch", () => {
  assert.equal(attempt({ protocol: "" }), "no-common-version");
  assert.equal(attempt({ protocol: "moqt-99" }), "no-common-version");
  assert.equal(attempt({ closeCode: 0x15 }), "no-common-version");
});
test("the relay's own words come first", () => assert.equal(attempt({ protocol: "moqt-16", closeCode: 2 }), "unauthorized"));

test("every problem says what is wrong and what to do", () => {
  for (const make of Object.values(problems)) {
    const { title, advice } = make("x.", "y.");
    assert.match(title, /\.$/);
    assert.match(advice, /\.$/);
  }
});
