import assert from "node:assert/strict";
import { test } from "node:test";
import { readSettings, SettingsError } from "../src/config.js";

const HASH = "0a".repeat(32);
const none = () => Promise.reject(new Error("404"));
const file = (content) => () => Promise.resolve(content);

test("config.json says where to connect", async () => {
  const settings = await readSettings(
    "",
    file({ relay: { url: "https://127.0.0.1:4443/", name: "hkg-1", certificate_sha256: HASH }, namespace: "live/a" }),
  );
  assert.equal(settings.relay.href, "https://127.0.0.1:4443/");
  assert.deepEqual(
    [settings.relayName, settings.certificate, settings.namespace, settings.chat],
    ["hkg-1", HASH, "live/a", true],
  );
});

test("the query string wins", async () => {
  const settings = await readSettings(
    `?relay=https://b.example/x?jwt=1&namespace=/live//b/&certificate=${HASH.toUpperCase()}&chat=off`,
    file({ relay: { url: "https://a.example/" }, namespace: "live/a" }),
  );
  assert.equal(settings.relay.href, "https://b.example/x?jwt=1");
  assert.deepEqual([settings.relayName, settings.namespace, settings.certificate, settings.chat],
    ["b.example", "live/b", HASH, false]);
});

test("what cannot be used is said in words", async () => {
  await assert.rejects(readSettings("", none), SettingsError);
  await assert.rejects(readSettings("?relay=nowhere", none), SettingsError);
  await assert.rejects(readSettings("?relay=http://a.example/", none), SettingsError);
  await assert.rejects(readSettings("?relay=https://a.example/&certificate=12", none), SettingsError);
});
