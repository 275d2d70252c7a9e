import assert from "node:assert/strict";
import { test } from "node:test";
import { DEFAULTS, moqWatch, Placement, shakaPlayer, watchGoaway } from "../place.js";

const NAMESPACE = "live/shop1";
const HASH = "ab".repeat(32);

/** A world with a clock of its own: endpoints that answer, relays that shake hands, a player that plays. */
class World {
  now = 1000;
  timers = new Map();
  count = 0;
  asked = []; // URLs
  dialled = []; // URIs that were probed
  answers = new Map(); // endpoint -> (url) => { status, body } or a promise of that
  relays = new Map(); // host -> handshake in ms; absent: never answers; -1: refuses
  went = []; // relays that the player was sent to
  changes = [];
  position = 0;
  playing = true;
  hidden = false;
  idle = false;
  chance = 0.5;
  memory = new Map();

  constructor() {
    const world = this;
    this.env = {
      fetch: (url, { signal }) => this.fetch(url, signal),
      setTimeout: (act, wait) => {
        this.timers.set(++this.count, { at: this.now + wait, act });
        return this.count;
      },
      clearTimeout: (handle) => this.timers.delete(handle),
      now: () => this.now,
      wallNow: () => this.now + 1e12,
      random: () => this.chance,
      isHidden: () => this.hidden,
      storage: {
        getItem: (name) => this.memory.get(name) ?? null,
        setItem: (name, value) => this.memory.set(name, value),
      },
      WebTransport: class {
        constructor(uri, options) {
          world.dialled.push({ uri, options });
          const took = world.relays.get(new URL(uri).hostname);
          this.closed = new Promise(() => {});
          this.ready = new Promise((resolve, reject) => {
            if (took === undefined) return;
            world.env.setTimeout(() => (took < 0 ? reject(new Error("refused")) : resolve()), Math.abs(took));
          });
        }
        close() {}
      },
    };
    this.player = {
      setUrl: (uri, candidate) => {
        this.went.push(candidate.id);
        this.uri = uri;
        this.candidate = candidate;
      },
      start: (tell) => {
        this.tell = tell;
        return () => (this.tell = undefined);
      },
      position: () => this.position,
      idle: () => this.idle,
    };
  }

  fetch(url, signal) {
    this.asked.push(url);
    const answer = this.answers.get(url.split("?")[0]);
    return new Promise((resolve, reject) => {
      signal.addEventListener("abort", () => reject(new Error("aborted")));
      if (answer === "silent") return;
      if (!answer) return reject(new Error("unreachable"));
      const { status = 200, body } = answer(new URL(url));
      resolve({ ok: status === 200, status, json: async () => body, text: async () => body });
    });
  }

  serve(endpoint, ...ids) {
    this.answers.set(endpoint, () => ({ body: manifest(...ids) }));
  }

  place(more = {}) {
    this.placement = new Placement({
      control: ["https://steer.example"],
      namespace: NAMESPACE,
      token: "TOKEN",
      player: this.player,
      onChange: (change) => this.changes.push(change),
      env: this.env,
      ...more,
    });
    this.placement.start();
    return this.placement;
  }

  /** Let time pass; the picture moves while `playing`. */
  async pass(milliseconds) {
    const until = this.now + milliseconds;
    for (;;) {
      await settle();
      const [handle, timer] = [...this.timers].reduce((least, one) => (one[1].at < least[1].at ? one : least), [0, { at: Infinity }]);
      if (timer.at > until) break;
      this.now = Math.max(this.now, timer.at);
      this.timers.delete(handle);
      if (this.playing) this.position += 1;
      timer.act();
    }
    this.now = until;
    await settle();
  }

  get last() {
    return this.changes.at(-1);
  }

  question(index = -1) {
    return new URL(this.asked.filter((url) => url.includes("/v1/place")).at(index)).searchParams;
  }
}

async function settle() {
  for (let turn = 0; turn < 40; turn += 1) await Promise.resolve();
}

function manifest(...ids) {
  return {
    version: 1,
    ttl: 30,
    probe: { n: 3, bytes: 1200 },
    candidates: ids.map((id, prio) => ({ id, prio, region: "eu", uri: `https://${id}.example/live?jwt=TOKEN&place=P` })),
  };
}

/** A world in which everything answers and the first of four relays is on the air. */
async function placed(more) {
  const world = new World();
  world.serve("https://steer.example/v1/place", "a", "b", "c", "d");
  for (const [id, took] of Object.entries({ a: 20, b: 30, c: 40, d: 50 })) world.relays.set(`${id}.example`, took);
  world.place(more);
  await world.pass(2000);
  return world;
}

test("sends the player to the best ranked of those that answer first", async () => {
  const world = await placed();
  assert.deepEqual(world.went, ["a"]);
  assert.equal(world.uri, "https://a.example/live?jwt=TOKEN&place=P");
  assert.equal(world.candidate.name, "shop1"); // beneath the path that is dialled
  assert.deepEqual([world.last.state, world.last.reason], ["placed", "placed"]);
  assert.equal(world.dialled.length, 3);
  const asked = world.question();
  assert.deepEqual([asked.get("namespace"), asked.get("jwt"), asked.get("here")], [NAMESPACE, "TOKEN", null]);
});

test("a worse ranked relay wins when the better one is later than the grace", async () => {
  for (const [took, winner] of [[20 + DEFAULTS.graceMs - 1, "a"], [20 + DEFAULTS.graceMs + 1, "b"]]) {
    const world = new World();
    world.serve("https://steer.example/v1/place", "a", "b", "c");
    world.relays = new Map([["a.example", took], ["b.example", 20], ["c.example", 400]]);
    world.place();
    await world.pass(1000);
    assert.deepEqual(world.went, [winner]);
  }
});

test("measured times are in the next question, with where it is and what failed", async () => {
  const world = await placed();
  await world.pass(40_000);
  const asked = world.question();
  assert.equal(asked.get("here"), "a");
  assert.equal(asked.get("rtt"), "a:10,b:15,c:20");
  assert.equal(asked.get("failed"), null);
  world.tell("error");
  await world.pass(5000);
  assert.deepEqual([world.question().get("here"), world.question().get("failed")], ["b", "a"]);
});

test("a browser without WebTransport goes where it is told", async () => {
  const world = new World();
  world.serve("https://steer.example/v1/place", "b", "a");
  world.env.WebTransport = undefined;
  world.place();
  await world.pass(10);
  assert.deepEqual(world.went, ["b"]);
});

test("asks the next controller when one is silent, and relays when all are gone", async () => {
  const world = new World();
  world.chance = 0;
  world.answers.set("https://one.example/v1/place", "silent");
  world.serve("https://two.example/v1/place", "a", "b");
  world.relays.set("a.example", 5);
  world.place({ control: ["https://one.example", "https://two.example/"] });
  await world.pass(DEFAULTS.hedgeAfterMs + 100);
  assert.deepEqual(world.went, ["a"]);
  // Who answered last is asked first.
  await world.pass(35_000);
  assert.match(world.asked.at(-1), /two\.example/);
  world.answers.clear();
  world.serve("https://b.example/v1/place", "b", "a");
  await world.pass(35_000);
  assert.deepEqual(world.asked.slice(-4).map((url) => new URL(url).host), ["two.example", "one.example", "a.example", "b.example"]);
});

test("moves at once to the next on an error, to the one after when that is dead too", async () => {
  const world = await placed();
  world.tell("error");
  await world.pass(DEFAULTS.jitterMs);
  assert.deepEqual(world.went, ["a", "b"]);
  assert.equal(world.last.reason, "error");
  world.relays.delete("c.example");
  world.tell("error");
  await world.pass(DEFAULTS.probeWithinMs + 2 * DEFAULTS.jitterMs);
  assert.deepEqual(world.went, ["a", "b", "c", "d"]);
});

test("a still picture is a stall, and only then", async () => {
  const world = await placed();
  await world.pass(20_000);
  assert.deepEqual(world.went, ["a"]);
  world.playing = false;
  await world.pass(DEFAULTS.stallMs - 300);
  assert.deepEqual(world.went, ["a"]);
  await world.pass(300 + 250 + DEFAULTS.jitterMs);
  assert.deepEqual(world.went, ["a", "b"]);
  assert.equal(world.last.reason, "stall");
});

test("where the relay does not answer either, a stall is believed sooner; where it does, a hiccup is none", async () => {
  const world = await placed();
  world.relays.delete("a.example");
  world.playing = false;
  await world.pass(DEFAULTS.suspectMs - 300);
  assert.deepEqual(world.went, ["a"]);
  await world.pass(300 + 250 + DEFAULTS.suspectWithinMs + DEFAULTS.jitterMs);
  assert.deepEqual(world.went, ["a", "b"]);
  const hiccup = await placed();
  const dialled = hiccup.dialled.length;
  hiccup.playing = false;
  await hiccup.pass(DEFAULTS.stallMs - 300);
  hiccup.playing = true;
  await hiccup.pass(5000);
  assert.deepEqual([hiccup.went, hiccup.dialled.length - dialled], [["a"], 1]);
});

test("a picture that stands every other moment is a stall too", async () => {
  const world = await placed();
  for (let second = 0; second < 12 && world.went.length === 1; second += 1) {
    world.playing = true;
    await world.pass(400);
    world.playing = false;
    await world.pass(800);
  }
  assert.deepEqual(world.went.slice(0, 2), ["a", "b"]);
});

test("hidden and paused players do not stall", async () => {
  for (const name of ["hidden", "idle"]) {
    const world = await placed();
    world.playing = false;
    world[name] = true;
    await world.pass(20_000);
    assert.deepEqual(world.went, ["a"]);
    world[name] = false;
    world.playing = true;
    await world.pass(3000);
    assert.deepEqual(world.went, ["a"]);
  }
});

test("a relay that shows nothing at all is left", async () => {
  const world = new World();
  world.serve("https://steer.example/v1/place", "a", "b");
  world.relays = new Map([["a.example", 5], ["b.example", 5]]);
  world.position = undefined;
  world.playing = false;
  world.place();
  await world.pass(DEFAULTS.startMs + 600);
  assert.deepEqual(world.went, ["a", "b"]);
});

test("GOAWAY spreads a crowd over time", async () => {
  const moments = [];
  for (const chance of [0, 0.5, 0.99]) {
    const world = await placed();
    world.chance = chance;
    world.tell("goaway");
    const from = world.now;
    while (world.went.length === 1) await world.pass(10);
    moments.push(world.now - from);
    assert.equal(world.last.reason, "goaway");
  }
  assert.ok(moments[0] <= 20 && moments[2] > 1400 && moments[1] > 700 && moments[1] < 800, moments);
});

test("goes to a better relay, but not more often than it may", async () => {
  const world = await placed();
  world.serve("https://steer.example/v1/place", "c", "a", "b");
  await world.pass(40_000);
  assert.deepEqual(world.went, ["a", "c"]);
  assert.equal(world.last.reason, "better");
  world.serve("https://steer.example/v1/place", "a", "c", "b");
  await world.pass(200_000);
  assert.deepEqual(world.went, ["a", "c"]);
  await world.pass(150_000);
  assert.deepEqual(world.went, ["a", "c", "a"]);
});

test("a relay that no answer names any more is left whatever the budget", async () => {
  const world = await placed();
  world.serve("https://steer.example/v1/place", "c", "a");
  await world.pass(40_000);
  world.serve("https://steer.example/v1/place", "b", "d");
  await world.pass(40_000);
  assert.deepEqual(world.went, ["a", "c", "b"]);
  assert.equal(world.last.reason, "goaway");
});

test("when nobody has a picture it looks at each once, and then waits", async () => {
  const world = await placed();
  world.playing = false;
  await world.pass(120_000);
  const went = [...world.went];
  assert.deepEqual(went.slice(0, 4), ["a", "b", "c", "d"]);
  assert.ok(went.length <= 6, went);
  assert.ok(world.changes.some(({ state }) => state === "waiting"));
  await world.pass(600_000);
  assert.deepEqual(world.went, went);
  // The relay that it waits at dies: that one it leaves.
  world.relays.delete(`${went.at(-1)}.example`);
  await world.pass(15_000);
  assert.equal(world.went.length, went.length + 1);
  // There it has a picture, and from then on a stall is a stall again.
  world.playing = true;
  await world.pass(60_000);
  world.playing = false;
  await world.pass(DEFAULTS.stallMs + 1000);
  assert.ok(world.went.length > went.length + 1);
});

test("when all are dead it goes round ever more slowly", async () => {
  const world = await placed();
  world.relays.clear();
  world.playing = false;
  await world.pass(60_000);
  const moves = world.went.length;
  await world.pass(60_000);
  assert.ok(moves >= 6 && world.went.length - moves < moves, [moves, world.went.length]);
});

test("what was answered last serves when nobody answers, and holds no access token", async () => {
  const first = await placed();
  assert.ok(![...first.memory.values()].some((text) => text.includes("TOKEN")));
  for (const [age, token, uri] of [
    [5000, "TOKEN", "https://a.example/live?place=P&jwt=TOKEN"],
    [90_000, "TOKEN", "https://b.example/live?place=P&jwt=TOKEN"], // a takes this token no longer
    [5000, "OTHER", "https://a.example/live?jwt=OTHER"], // P is for who has TOKEN
  ]) {
    const world = new World();
    world.memory = first.memory;
    world.now = first.now + age;
    for (const id of ["a", "b", "c"]) world.relays.set(`${id}.example`, 5);
    world.place({ token: age > 5000 ? async () => token : token });
    await world.pass(100);
    assert.deepEqual([world.uri, world.last.reason], [uri, "remembered"]);
    // Relays it remembers were asked where to go, too.
    assert.ok(world.asked.some((url) => url.startsWith("https://a.example/v1/place?")));
  }
});

test("what is too old, or no answer at all, is not used", async () => {
  const first = await placed();
  for (const memory of [first.memory, new Map([[`tradewind.place ${NAMESPACE}`, "{"]])]) {
    const world = new World();
    world.memory = memory;
    world.now = first.now + 5 * 3_600_000;
    world.place();
    await world.pass(100);
    assert.deepEqual([world.went, world.last.state], [[], "waiting"]);
    world.serve("https://steer.example/v1/place", "a");
    world.relays.set("a.example", 1);
    await world.pass(5000);
    assert.deepEqual(world.went, ["a"]);
  }
});

test("a refusal is final before anything plays, and changes nothing after", async () => {
  const refusal = () => ({ status: 403, body: { version: 1, reason: "outside_token" } });
  const world = new World();
  world.answers.set("https://steer.example/v1/place", refusal);
  world.place();
  await world.pass(60_000);
  assert.deepEqual([world.last.state, world.last.reason, world.asked.length], ["refused", "outside_token", 1]);
  const playing = await placed();
  playing.answers.set("https://steer.example/v1/place", refusal);
  await playing.pass(100_000);
  assert.deepEqual([playing.went, playing.last.state], [["a"], "placed"]);
});

test("no room is asked about again", async () => {
  const world = new World();
  world.answers.set("https://steer.example/v1/place", () => ({ status: 503, body: { reason: "no_capacity", retry_s: 5 } }));
  world.place();
  await world.pass(4900);
  assert.deepEqual([world.last.state, world.asked.length], ["waiting", 1]);
  world.serve("https://steer.example/v1/place", "a");
  world.relays.set("a.example", 1);
  await world.pass(10_000);
  assert.deepEqual(world.went, ["a"]);
});

test("the hash of a self-signed certificate is asked for on loopback alone", async () => {
  const world = new World();
  const uri = "https://127.0.0.1:4443/live?jwt=TOKEN";
  world.answers.set("https://steer.example/v1/place", () => ({ body: { candidates: [{ id: "a", uri, prio: 0 }] } }));
  world.answers.set("http://127.0.0.1:4443/certificate.sha256", () => ({ body: `${HASH}\n` }));
  world.place();
  await world.pass(100);
  assert.deepEqual([world.went, world.candidate.certificate], [["a"], HASH]);
  const away = await placed();
  assert.ok(!away.asked.some((url) => url.includes("certificate")));
});

test("after close nothing happens any more", async () => {
  const world = await placed();
  const { tell } = world;
  world.placement.close();
  world.placement.close();
  tell("error");
  await world.pass(100_000);
  assert.deepEqual([world.went, world.tell, world.timers.size], [["a"], undefined, 0]);
  assert.deepEqual(world.changes.filter(({ state }) => state === "closed").length, 1);
});

test("what is missing is said at once", () => {
  assert.throws(() => new Placement({ control: ["https://x.example"], namespace: NAMESPACE, token: "T" }), /player is missing/);
});

test("the adapter of moq-watch tells its own moves from failures", () => {
  let report;
  const element = {
    connection: { status: { subscribe: (told) => (report = told) }, webtransport: undefined },
    video: { out: { timestamp: { peek: () => 7 } } },
    paused: false,
  };
  const told = [];
  const player = moqWatch(element);
  player.start((event) => told.push(event));
  player.setUrl("https://a.example/live?jwt=T", { name: "shop1", certificate: HASH });
  assert.equal(element.connection.webtransport.serverCertificateHashes[0].value[0], 0xab);
  for (const status of ["connecting", "connected"]) report(status);
  player.setUrl("https://b.example/live?jwt=T", { name: "shop1" });
  assert.equal(element.connection.webtransport.serverCertificateHashes, undefined);
  assert.equal(new URL(element.url).searchParams.get("jwt"), "T");
  for (const status of ["disconnected", "connecting", "connected"]) report(status);
  assert.deepEqual(told, []);
  report("disconnected");
  assert.deepEqual([told, player.position(), player.idle(), element.name], [["error"], 7, false, "shop1"]);
});

test("the adapter of Shaka tells of the last load alone", async () => {
  const loads = [];
  let report;
  const player = {
    configure: (settings) => (player.settings = settings),
    load: () => new Promise((_, reject) => loads.push(reject)),
    addEventListener: (_, told) => (report = told),
    removeEventListener: () => (report = undefined),
  };
  const told = [];
  const adapter = shakaPlayer(player, { currentTime: 3, paused: true });
  const stop = adapter.start((event) => told.push(event));
  adapter.setUrl("https://a.example/live", { name: "shop1/cam", certificate: HASH });
  assert.deepEqual(player.settings.manifest.msf, { namespaces: ["shop1", "cam"], fingerprintUri: `data:text/plain,${HASH}` });
  adapter.setUrl("https://b.example/live", { name: "shop1/cam" });
  loads[0](new Error("interrupted"));
  await settle();
  assert.deepEqual(told, []);
  loads[1](new Error("unreachable"));
  await settle();
  report({ detail: { severity: 1 } });
  report({ detail: { severity: 2 } });
  assert.deepEqual([told, adapter.position(), adapter.idle()], [["error", "error"], 3, true]);
  stop();
  assert.equal(report, undefined);
});

test("GOAWAY is heard and kept from the player, however the bytes come", async () => {
  const varint = (type) => (type < 64 ? [type] : [0x40 | (type >> 8), type & 0xff]);
  const message = (type, body) => [...varint(type), body.length >> 8, body.length & 0xff, ...body];
  const before = [...message(0x21, [1, 2, 3]), ...message(0x4, new Array(300).fill(9))];
  const goaway = message(0x10, [0]);
  const after = message(0x110, [5]);
  const bytes = [...before, ...goaway, ...after];
  for (const size of [1, 2, 7, bytes.length]) {
    const chunks = [];
    for (let at = 0; at < bytes.length; at += size) chunks.push(Uint8Array.from(bytes.slice(at, at + size)));
    class Transport {
      protocol = "moqt-16";
      async createBidirectionalStream() {
        return { readable: new ReadableStream({ start: (to) => (chunks.forEach((chunk) => to.enqueue(chunk)), to.close()) }), writable: 1 };
      }
    }
    const scope = { WebTransport: Transport };
    const told = [];
    const stop = watchGoaway((url) => told.push(url.host), scope);
    const transport = new scope.WebTransport("https://a.example/live");
    const control = await transport.createBidirectionalStream();
    const request = await transport.createBidirectionalStream();
    const seen = [];
    for await (const chunk of control.readable) seen.push(...chunk);
    assert.deepEqual(seen, [...before, ...after]);
    let whole = 0;
    for await (const chunk of request.readable) whole += chunk.length;
    assert.deepEqual([told, control.writable, whole], [["a.example"], 1, bytes.length]);
    stop();
    assert.equal(scope.WebTransport, Transport);
  }
});
