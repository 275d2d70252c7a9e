import assert from "node:assert/strict";
import { test } from "node:test";
import { Heard, parse, Rate } from "../src/chat.js";

const bytes = (text) => new TextEncoder().encode(text);

test("a message has a name, a text and a time", () => {
  assert.deepEqual(parse(bytes('{"name":"Ada","text":"hello","at":5}')), { name: "Ada", text: "hello", at: 5 });
});

test("what is no message is nothing", () => {
  for (const text of ["", "null", "[]", "{}", '{"text":""}', '{"text":3}', "{", "x".repeat(9000)]) {
    assert.equal(parse(bytes(text)), undefined, text);
  }
  assert.equal(parse(Uint8Array.of(0xff, 0xfe)), undefined);
});

test("length is limited", () => {
  const message = parse(bytes(JSON.stringify({ name: "n".repeat(100), text: "t".repeat(1500), at: "x" })));
  assert.deepEqual([message.name.length, message.text.length], [40, 500]);
  assert.equal(typeof message.at, "number");
});

test("a sender is heard five times a second at most", () => {
  const rate = new Rate(5);
  const heard = Array.from({ length: 20 }, (_, i) => rate.allows(i * 10));
  assert.equal(heard.filter(Boolean).length, 5);
  assert.equal(rate.allows(1005), true);
});

test("a message is heard once, however often it comes", () => {
  const heard = new Heard();
  assert.equal(heard.isNew("a", { at: 1, text: "x" }), true);
  assert.equal(heard.isNew("a", { at: 1, text: "x" }), false);
  assert.equal(heard.isNew("b", { at: 1, text: "x" }), true);
  assert.equal(heard.isNew("a", { at: 2, text: "x" }), true);
  for (let at = 3; at < 1000; at++) assert.equal(heard.isNew("a", { at, text: "y" }), true);
  assert.equal(heard.isNew("a", { at: 999, text: "y" }), false);
});
