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

test("a page that is placed names whom it asks, and no relay", async () => {
  const settings = await readSettings(
    "",
    file({ placement: { control: ["https://steer.example"], token: "T" }, relay: { url: "https://a.example/" } }),
  );
  assert.deepEqual([settings.relay, settings.placement, settings.namespace],
    [undefined, { control: ["https://steer.example"], token: "T" }, "live/demo"]);
  const asked = await readSettings("?place=https://b.example&place=https://c.example&jwt=U", none);
  assert.deepEqual(asked.placement, { control: ["https://b.example", "https://c.example"], token: "U" });
  // Who names a relay wants that one.
  const direct = await readSettings("?relay=https://d.example/", file({ placement: { control: ["https://b.example"] } }));
  assert.deepEqual([direct.placement, direct.relay.href], [undefined, "https://d.example/"]);
});

test("placement that cannot be used is said in words", async () => {
  await assert.rejects(readSettings("?place=https://b.example", none), SettingsError);
  await assert.rejects(readSettings("?place=nowhere&jwt=T", none), SettingsError);
});
