// Places a player: asks where to go, measures the nearest relays, sets the player's URL, and moves it on when its relay
// fails, stalls or leaves. One module without dependencies; docs/placement.md has the whole story.
//
//   import { moqWatch, place } from "./place.js";
//   const placement = place({ control: ["https://steer.example"], namespace: "live/shop1", token, player: moqWatch(element) });

/** The defaults; `place` takes every one of them by its name. Times are milliseconds. */
export const DEFAULTS = Object.freeze({
  answerWithinMs: 3000, // one placement endpoint
  hedgeAfterMs: 600, // an endpoint silent for so long: ask the next one as well
  probeWithinMs: 1500,
  graceMs: 30, // after the first relay answered, a better ranked one may still
  suspectMs: 500, // a picture still for so long: look whether the relay answers at all
  suspectWithinMs: 500, // which it has to do in this time, or four times what it took before
  stallMs: 2500, // still for so long, the way there is at fault, or the relay, whatever it answers
  startMs: 5000, // a relay that shows nothing for so long after the player went there has failed
  choppyRatio: 0.4, // of the last `choppyOverMs` still, however short each time: stalled too
  choppyOverMs: 10_000,
  failedForMs: 60_000, // a relay that failed is not tried before the others for so long
  movesEveryMs: 300_000, // moves to better relays; failing ones are left at once
  jitterMs: 150, // before a move away from a dead relay: a crowd does not land in one instant
  leaveJitterMs: 1500, // the same where the old relay still serves: GOAWAY, or a better place
  backoffFirstMs: 1000, // when every candidate failed
  backoffMostMs: 30_000,
  ttlMs: 30_000, // where an answer has none
});

const TICK_MS = 250;
const FIRST_ADMITS_MS = 60_000; // for so long the first candidate takes the placement token; the others for hours
const REMEMBERED_FOR_MS = 4 * 3_600_000;
const MOST_RTTS = 8; // as many as an answerer reads
const MOST_FAILED = 4;
const PROTOCOLS = Array.from({ length: 7 }, (_, index) => `moqt-${16 + index}`);
const FINAL = new Set([400, 401, 403]);
const MOST_TIMER_MS = 2 ** 31 - 1;

/**
 * Place a player, and keep it placed until `close()`.
 *
 * @param {object} options
 * @param {string[]} options.control - placement endpoints: `https://host[:port]` or the whole URL of their `/v1/place`
 * @param {string} options.namespace - what to watch: global, its fields joined by "/"
 * @param {string | (() => string | Promise<string>)} options.token - the access token; a function is asked before each question
 * @param {Player} options.player - an adapter: `moqWatch(element)`, `shakaPlayer(player, video)`, or your own
 * @param {string} [options.path] - what to dial; by default as far up as the token allows
 * @param {string} [options.viewer] - tells viewers of one token apart; by default a random name that the browser keeps
 * @param {boolean} [options.development] - ask relays on any host for the hash of a self-signed certificate, and over
 *   plain HTTP; on loopback that is always so. Never in production: what answers plain HTTP can be anybody
 * @param {(change: Change) => void} [options.onChange]
 * @returns {Placement}
 *
 * @typedef {object} Player
 * @property {(uri: string, candidate: Candidate) => void} setUrl - go there; `uri` can be dialled as it is
 * @property {(tell: (event: "error" | "stall" | "goaway") => void) => (() => void) | void} [start] - watch the player;
 *   returns what ends that
 * @property {() => number | undefined} [position] - changes while a picture moves: the watchdog looks at it
 * @property {() => boolean} [idle] - whether it is not meant to play (paused)
 *
 * @typedef {object} Candidate
 * @property {string} id
 * @property {string} uri
 * @property {string} region
 * @property {string} name - the namespace beneath the path of `uri`: what to ask this relay for
 * @property {string} [certificate] - SHA-256 of a self-signed certificate in hexadecimal
 *
 * @typedef {object} Change
 * @property {"asking" | "placed" | "waiting" | "refused" | "closed"} state
 * @property {Candidate} [relay]
 * @property {string} reason - "placed", "remembered", "error", "stall", "goaway", "better", or why nothing is to be had
 * @property {Record<string, number>} rttsMs
 */
export function place(options) {
  const placement = new Placement(options);
  placement.start();
  return placement;
}

/** One player's placement. `place` makes and starts it. */
export class Placement {
  rttsMs = {};
  relay; // the candidate that the player is on
  state = "asking";
  #options;
  #env;
  #closed = false;
  #candidates = [];
  #probeCount = 3;
  #askedLast; // the endpoint that answered last
  #failed = new Map(); // relay -> until when it counts as failed
  #movedAt = Number.NEGATIVE_INFINITY; // the last move to a better relay
  #moving = false;
  #wentAt = 0;
  #watch;
  #suspecting = false;
  #patient = false; // every relay was tried and none showed anything: there is nothing to see
  #jwt;
  #backoffMs;
  #timers = new Map(); // name -> handle
  #stopPlayer;
  #hashes = new Map(); // origin -> promise of a certificate's hash
  #asking;
  #retryMs = 0; // how long those who have no room asked us to wait
  #epoch = 0; // one more with every move: what was begun before has nothing to say any more

  constructor(options) {
    for (const name of ["control", "namespace", "token", "player"]) {
      if (!options?.[name]) throw new TypeError(`place: ${name} is missing`);
    }
    this.#options = { ...DEFAULTS, ...options };
    this.#env = environment(options.env);
    this.#backoffMs = this.#options.backoffFirstMs;
  }

  start() {
    this.#stopPlayer = this.#options.player.start?.((event) => this.leave(event)) ?? undefined;
    this.#tick();
    void this.#begin();
  }

  /** Stop placing. The player stays where it is. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    for (const handle of this.#timers.values()) this.#env.clearTimeout(handle);
    this.#timers.clear();
    this.#stopPlayer?.();
    this.#change("closed", "closed");
  }

  /** Go to the next relay. @param {"error" | "stall" | "goaway"} reason - whatever it is that the player met */
  leave(reason) {
    if (this.#closed || this.#moving || this.relay === undefined) return;
    this.#moving = true;
    const { failedForMs, jitterMs, leaveJitterMs } = this.#options;
    this.#failed.set(this.relay.id, this.#env.now() + failedForMs);
    const wait = this.#env.random() * (reason === "goaway" ? leaveJitterMs : jitterMs);
    this.#after("move", wait, () => void this.#moveOn(reason));
  }

  // --- Beginning, and asking again ---

  async #begin() {
    this.#change("asking", "asking");
    const answered = await this.#ask();
    if (this.#closed) return;
    let reason = "placed";
    if (!answered) {
      if (this.state === "refused") return;
      this.#candidates = this.#recall();
      reason = "remembered";
    }
    if (this.#candidates.length === 0) {
      this.#change("waiting", "no placement endpoint answered");
      this.#after("again", Math.max(this.#nextBackoff(), this.#retryMs), () => void this.#begin());
      return;
    }
    await this.#go(await this.#race(), reason);
    this.#askLater(answered?.ttlMs);
  }

  /** Ask again when the last answer is old. */
  #askLater(ttlMs) {
    const wait = (ttlMs ?? this.#options.ttlMs) * (0.9 + this.#env.random() / 5);
    this.#after("ask", wait, () => void this.#askAgain());
  }

  async #askAgain() {
    const epoch = this.#epoch;
    const answered = await this.#ask();
    if (this.#closed) return;
    this.#askLater(answered?.ttlMs);
    if (!answered || this.#moving || epoch !== this.#epoch || this.relay === undefined) return;
    const best = this.#candidates[0];
    if (best.id === this.relay.id || this.#isFailed(best)) return;
    // Whoever answers keeps a viewer where it is unless there is a reason. A relay that is not even named has left.
    const named = this.#candidates.some(({ id }) => id === this.relay.id);
    if (named && this.#env.now() - this.#movedAt < this.#options.movesEveryMs) return;
    this.#moving = true;
    this.#movedAt = this.#env.now();
    this.#after("move", this.#env.random() * this.#options.leaveJitterMs, () => {
      void this.#go(best, named ? "better" : "goaway", { verify: true });
    });
  }

  /** Ask the endpoints until one answers. @returns {Promise<{ttlMs: number} | undefined>} */
  #ask() {
    this.#asking ??= this.#askEndpoints().finally(() => (this.#asking = undefined));
    return this.#asking;
  }

  async #askEndpoints() {
    const { token } = this.#options;
    let jwt;
    try {
      jwt = typeof token === "function" ? await token() : token;
    } catch {
      return undefined;
    }
    this.#jwt = jwt;
    this.#retryMs = 0;
    const endpoints = this.#endpoints();
    const query = this.#query(jwt);
    return new Promise((resolve) => {
      let next = 0;
      let open = 0;
      let done = false;
      let hedge;
      const finish = (answer) => {
        done = true;
        this.#env.clearTimeout(hedge);
        resolve(answer);
      };
      const another = () => {
        this.#env.clearTimeout(hedge);
        if (done) return;
        if (next >= endpoints.length) {
          if (open === 0) finish(undefined);
          return;
        }
        const endpoint = endpoints[next++];
        open += 1;
        hedge = this.#env.setTimeout(another, this.#options.hedgeAfterMs);
        void this.#askOne(endpoint, query).then((answer) => {
          open -= 1;
          if (done) return;
          if (answer.document) {
            this.#askedLast = endpoint;
            finish(this.#take(answer.document, jwt));
          } else if (answer.final) {
            this.#change("refused", answer.reason);
            finish(undefined);
          } else {
            another();
          }
        });
      };
      another();
    });
  }

  async #askOne(endpoint, query) {
    const abort = new AbortController();
    const timer = this.#env.setTimeout(() => abort.abort(), this.#options.answerWithinMs);
    try {
      const answer = await this.#env.fetch(`${endpoint}?${query}`, { signal: abort.signal, cache: "no-store" });
      const document = await answer.json();
      if (answer.ok && isManifest(document)) return { document };
      // Only where nothing plays yet: a viewer that has a picture does not lose it over a question.
      const final = FINAL.has(answer.status) && this.relay === undefined;
      if (document?.retry_s > 0) this.#retryMs = document.retry_s * 1000;
      return { final, reason: String(document?.reason ?? answer.status) };
    } catch {
      return { final: false, reason: "unreachable" };
    } finally {
      this.#env.clearTimeout(timer);
    }
  }

  /** Controllers first, whoever answered last before the others; then every relay that we know. */
  #endpoints() {
    const controllers = this.#options.control.map(endpointOf);
    const last = controllers.indexOf(this.#askedLast);
    const turn = last >= 0 ? last : Math.floor(this.#env.random() * controllers.length);
    const relays = [...this.#candidates, ...this.#recall()].map(({ uri }) => this.#relayBase(uri) + "/v1/place");
    return [...new Set([...controllers.slice(turn), ...controllers.slice(0, turn), ...relays])];
  }

  #query(jwt) {
    const query = new URLSearchParams({ namespace: this.#options.namespace });
    if (this.#options.path !== undefined) query.set("path", this.#options.path);
    query.set("viewer", this.#options.viewer ?? this.#viewer());
    if (this.relay) query.set("here", this.relay.id);
    const failed = [...this.#failed.keys()].filter((id) => this.#isFailed({ id })).slice(-MOST_FAILED);
    if (failed.length) query.set("failed", failed.join(","));
    const rtts = Object.entries(this.rttsMs).slice(-MOST_RTTS);
    if (rtts.length) query.set("rtt", rtts.map(([id, ms]) => `${id}:${ms}`).join(","));
    query.set("jwt", jwt);
    return query;
  }

  #take(document, jwt) {
    this.#candidates = this.#prepared([...document.candidates].sort((a, b) => a.prio - b.prio));
    this.#probeCount = Number.isInteger(document.probe?.n) ? document.probe.n : 3;
    this.#remember(document, jwt);
    return { ttlMs: document.ttl > 0 ? document.ttl * 1000 : this.#options.ttlMs };
  }

  #prepared(candidates) {
    return candidates.map(({ id, uri, region = "", certificate_sha256: certificate }) => ({
      id,
      uri,
      region,
      name: beneath(this.#options.namespace, new URL(uri).pathname),
      certificate,
    }));
  }

  // --- Measuring ---

  /** Measure the first candidates: the best ranked of those that answer within the grace of the first wins. */
  async #race() {
    const usable = this.#candidates.filter((candidate) => !this.#isFailed(candidate));
    const ordered = usable.length ? usable : this.#candidates;
    const racing = ordered.slice(0, this.#probeCount);
    if (!this.#env.WebTransport || racing.length < 2) return ordered[0];
    const answered = new Set();
    await new Promise((resolve) => {
      let left = racing.length;
      for (const candidate of racing) {
        void this.#probe(candidate).then((reached) => {
          left -= 1;
          if (reached) {
            if (answered.size === 0) this.#env.setTimeout(resolve, this.#options.graceMs);
            answered.add(candidate);
          } else {
            this.#failed.set(candidate.id, this.#env.now() + this.#options.failedForMs);
          }
          if (left === 0) resolve();
        });
      }
    });
    return racing.find((candidate) => answered.has(candidate)) ?? ordered[racing.length] ?? ordered[0];
  }

  /** One WebTransport handshake. @returns {Promise<boolean>} whether the relay answered in time */
  async #probe(candidate, withinMs = this.#options.probeWithinMs) {
    await this.#findCertificate(candidate);
    const began = this.#env.now();
    const options = { allowPooling: false, protocols: PROTOCOLS, ...hashOption(candidate.certificate) };
    let transport;
    let timer;
    try {
      transport = new this.#env.WebTransport(candidate.uri, options);
      transport.closed?.catch(() => {});
      const late = new Promise((_, reject) => {
        timer = this.#env.setTimeout(() => reject(new Error("late")), withinMs);
      });
      await Promise.race([transport.ready, late]);
      // The handshake and the request take about two round trips; what QUIC itself measured is better.
      const tookMs = this.#env.now() - began;
      const stats = await transport.getStats?.().catch(() => undefined);
      const measured = stats?.minRtt ?? stats?.smoothedRtt;
      this.rttsMs[candidate.id] = Math.max(Math.round((measured > 0 ? measured : tookMs / 2) * 10) / 10, 0.1);
      return true;
    } catch {
      return false;
    } finally {
      this.#env.clearTimeout(timer);
      // Where it has not been opened yet, closing is one more way to fail.
      try {
        transport?.close();
      } catch {
        /* It never was. */
      }
    }
  }

  /** The hash of a certificate that no authority signed, where one may ask for it. */
  async #findCertificate(candidate) {
    if (candidate.certificate || !this.#isDevelopment(candidate.uri)) return;
    const base = this.#relayBase(candidate.uri);
    if (!this.#hashes.has(base)) {
      const asked = this.#fetchText(`${base}/certificate.sha256`).then((text) => (isHash(text) ? text : undefined));
      this.#hashes.set(base, asked);
      void asked.then((hash) => hash ?? this.#hashes.delete(base));
    }
    candidate.certificate = await this.#hashes.get(base);
  }

  async #fetchText(url) {
    const abort = new AbortController();
    const timer = this.#env.setTimeout(() => abort.abort(), this.#options.probeWithinMs);
    try {
      const answer = await this.#env.fetch(url, { signal: abort.signal, cache: "no-store" });
      return answer.ok ? (await answer.text()).trim().toLowerCase() : "";
    } catch {
      return "";
    } finally {
      this.#env.clearTimeout(timer);
    }
  }

  #isDevelopment(uri) {
    const { hostname } = new URL(uri);
    return this.#options.development === true || ["localhost", "127.0.0.1", "[::1]"].includes(hostname);
  }

  #relayBase(uri) {
    const { host } = new URL(uri);
    return `${this.#isDevelopment(uri) ? "http" : "https"}://${host}`;
  }

  // --- Moving ---

  async #moveOn(reason) {
    const next = this.#next();
    if (next) {
      await this.#go(next, reason, { verify: true });
      // The others may have news by now, and we want candidates for the next time.
      this.#after("ask", this.#options.backoffFirstMs * (1 + this.#env.random()), () => void this.#askAgain());
      return;
    }
    // Everything failed: more likely that is us, or there is nothing to see. Slower every time, and everybody again.
    this.#patient = true;
    this.#change("waiting", reason);
    await this.#ask();
    if (this.#closed) return;
    const fresh = this.#next();
    this.#after("move", fresh ? 0 : this.#nextBackoff(), () => {
      if (!fresh) this.#failed.clear();
      const candidate = fresh ?? this.#candidates.find(({ id }) => id !== this.relay?.id) ?? this.#candidates[0];
      void this.#go(candidate, reason);
    });
  }

  #next() {
    return this.#candidates.find((candidate) => candidate.id !== this.relay?.id && !this.#isFailed(candidate));
  }

  /** Whether a relay that the player was just sent to answers at all: the player itself may take long to notice. */
  async #verify(candidate) {
    if (!this.#env.WebTransport) return;
    const epoch = this.#epoch;
    const reached = await this.#probe(candidate);
    if (!reached && epoch === this.#epoch) this.leave("error");
  }

  async #go(candidate, reason, { verify = false } = {}) {
    await this.#findCertificate(candidate);
    if (this.#closed) return;
    this.#moving = false;
    this.#epoch += 1;
    this.relay = candidate;
    this.#wentAt = this.#env.now();
    this.#watch = new Watch(this.#options);
    this.#suspecting = false;
    this.#options.player.setUrl(candidate.uri, candidate);
    this.#change("placed", reason);
    if (verify) void this.#verify(candidate);
  }

  #isFailed({ id }) {
    return (this.#failed.get(id) ?? 0) > this.#env.now();
  }

  #nextBackoff() {
    const wait = this.#backoffMs * (0.5 + this.#env.random());
    this.#backoffMs = Math.min(this.#backoffMs * 2, this.#options.backoffMostMs);
    return wait;
  }

  // --- Watching ---

  #tick() {
    this.#after("tick", TICK_MS, () => {
      this.#look();
      if (!this.#closed) this.#tick();
    });
  }

  #look() {
    const { player, startMs, choppyOverMs } = this.#options;
    if (this.#moving || this.relay === undefined || !player.position) return;
    const now = this.#env.now();
    if (this.#env.isHidden() || player.idle?.()) {
      // Nobody sees whether it moves, and browsers stop what nobody sees.
      this.#watch = new Watch(this.#options);
      this.#wentAt = now;
      return;
    }
    const verdict = this.#watch.look(now, player.position());
    if (verdict === "still" && this.#watch.stillMs(now) >= this.#options.suspectMs) void this.#suspect();
    if (verdict === "stalled") this.leave("stall");
    else if (verdict === "silent" && now - this.#wentAt > startMs) this.#wait(now);
    else if (verdict === "moving") {
      this.#patient = false;
      if (now - this.#wentAt > choppyOverMs) this.#backoffMs = this.#options.backoffFirstMs;
    }
  }

  /** Nothing to see here yet. Before a show begins that is no relay's fault, and a crowd that waits shall not wander. */
  #wait(now) {
    if (!this.#patient) {
      this.leave("stall");
      return;
    }
    this.#wentAt = now;
    void this.#verify(this.relay);
  }

  /** The picture stands: where the relay does not answer either, do not wait for longer. */
  async #suspect() {
    if (this.#suspecting || !this.#env.WebTransport) return;
    this.#suspecting = true;
    const { relay } = this;
    const epoch = this.#epoch;
    const watch = this.#watch;
    const { suspectMs, suspectWithinMs } = this.#options;
    const reached = await this.#probe(relay, Math.max(suspectWithinMs, 4 * (this.rttsMs[relay.id] ?? 0)));
    const stands = epoch === this.#epoch && watch === this.#watch && watch.stillMs(this.#env.now()) >= suspectMs;
    if (!reached && stands) this.leave("stall");
    // Whether it answers now says nothing of a moment later; but once a stall is enough.
    this.#after("suspect", this.#options.stallMs, () => (this.#suspecting = false));
  }

  // --- Remembering ---

  get #memory() {
    return `tradewind.place ${this.#options.namespace}`;
  }

  /** Keep the answer without the access token in it: whoever reads this browser's storage shall not have that. */
  #remember(document, jwt) {
    const candidates = document.candidates.map((candidate) => ({ ...candidate, uri: withQuery(candidate.uri, { jwt: null }) }));
    this.#store(this.#memory, JSON.stringify({ at: this.#env.wallNow(), of: digest(jwt), candidates }));
  }

  #recall() {
    try {
      const { at, of, candidates } = JSON.parse(this.#env.storage?.getItem(this.#memory) ?? "null") ?? {};
      const ageMs = this.#env.wallNow() - at;
      if (!isManifest({ candidates }) || !(ageMs >= 0 && ageMs < REMEMBERED_FOR_MS)) return [];
      const jwt = this.#jwt ?? null;
      const mine = jwt !== null && digest(jwt) === of;
      const found = candidates.map((candidate) => ({
        ...candidate,
        uri: withQuery(candidate.uri, mine ? { jwt } : { jwt, place: null }),
      }));
      // By now the first one may take nobody with this token.
      if (ageMs >= FIRST_ADMITS_MS && found.length > 1) found.push(found.shift());
      return this.#prepared(found);
    } catch {
      return [];
    }
  }

  #viewer() {
    const name = "tradewind.viewer";
    this.#options.viewer = this.#env.storage?.getItem(name) ?? undefined;
    if (!this.#options.viewer) {
      this.#options.viewer = Math.floor(this.#env.random() * 2 ** 52).toString(36);
      this.#store(name, this.#options.viewer);
    }
    return this.#options.viewer;
  }

  #store(name, value) {
    try {
      this.#env.storage?.setItem(name, value);
    } catch {
      /* No room, or not allowed: then it is not remembered. */
    }
  }

  #after(name, milliseconds, act) {
    this.#env.clearTimeout(this.#timers.get(name));
    const handle = this.#env.setTimeout(
      () => {
        this.#timers.delete(name);
        if (!this.#closed) act();
      },
      Math.min(milliseconds, MOST_TIMER_MS),
    );
    this.#timers.set(name, handle);
  }

  #change(state, reason) {
    this.state = state;
    this.#options.onChange?.({ state, reason, relay: this.relay, rttsMs: { ...this.rttsMs } });
  }
}

/** Judges by a number that changes while a picture moves. */
class Watch {
  #options;
  #last;
  #changedAt;
  #looks = []; // whether each of the last looks found it still

  constructor(options) {
    this.#options = options;
  }

  /** For how long nothing has moved. */
  stillMs(now) {
    return this.#changedAt === undefined ? 0 : now - this.#changedAt;
  }

  /** @returns {"silent" | "moving" | "still" | "stalled"} silent: nothing has moved here yet */
  look(now, position) {
    const first = this.#last === undefined;
    const moved = position !== undefined && position !== this.#last;
    this.#last = position ?? this.#last;
    // What it shows first may be left over from before.
    if (first || (this.#changedAt === undefined && !moved)) return "silent";
    if (moved) this.#changedAt = now;
    this.#looks.push(!moved);
    const most = this.#options.choppyOverMs / TICK_MS;
    if (this.#looks.length > most) this.#looks.shift();
    if (now - this.#changedAt >= this.#options.stallMs) return "stalled";
    const still = this.#looks.filter(Boolean).length;
    if (this.#looks.length >= most && still >= most * this.#options.choppyRatio) return "stalled";
    return moved ? "moving" : "still";
  }
}

// --- Players ---

/** An adapter for `<moq-watch>` of @moq/watch. @param {HTMLElement} element @returns {Player} */
export function moqWatch(element) {
  const { connection } = element;
  let host = "";
  let times = 0;
  let settled = true; // what the connection says is about the URL that it was given last
  return {
    setUrl(uri, { name, certificate }) {
      settled = false;
      ({ host } = new URL(uri));
      connection.webtransport = { ...connection.webtransport, serverCertificateHashes: undefined, ...hashOption(certificate) };
      if (element.name !== name) element.name = name;
      // The element connects anew only where the URL is another one.
      element.url = withQuery(uri, { n: String(++times) });
    },
    start(tell) {
      const unwatch = watchGoaway((url) => url.host === host && tell("goaway"));
      const unsubscribe = connection.status.subscribe((status) => {
        if (status === "connecting") settled = true;
        else if (status === "disconnected" && settled) tell("error");
      });
      return () => {
        unwatch();
        unsubscribe?.();
      };
    },
    position: () => element.video.out.timestamp.peek(),
    idle: () => element.paused,
  };
}

/** An adapter for Shaka Player's MSF builds. @param {shaka.Player} player @param {HTMLMediaElement} video @returns {Player} */
export function shakaPlayer(player, video) {
  let tell = () => {};
  let loads = 0;
  let host = "";
  return {
    setUrl(uri, { name, certificate }) {
      const load = ++loads;
      ({ host } = new URL(uri));
      const fingerprintUri = certificate ? `data:text/plain,${certificate}` : "";
      player.configure({ manifest: { msf: { namespaces: name.split("/"), fingerprintUri } } });
      player
        .load(uri, null, "application/msf")
        .then(() => video.play())
        .catch(() => {
          if (load === loads) tell("error");
        });
    },
    start(report) {
      tell = report;
      const failed = (event) => {
        // Severity 2: it cannot go on. What is less it mends by itself.
        if ((event.detail ?? event).severity === 2) tell("error");
      };
      player.addEventListener("error", failed);
      const unwatch = watchGoaway((url) => url.host === host && tell("goaway"));
      return () => {
        unwatch();
        player.removeEventListener("error", failed);
      };
    },
    position: () => video.currentTime,
    idle: () => video.paused && video.currentTime > 0,
  };
}

/**
 * Hear of every GOAWAY that a relay sends, whatever the player makes of it: today's stop playing at once, or take no
 * notice until the relay is gone. From now on sessions of this page hand GOAWAY to `tell` and not to the player, which
 * goes on until it is moved. Drafts 15 and 16: the control stream is the first that the client opens.
 *
 * @param {(url: URL) => void} tell - the address of that session
 * @returns {() => void} what ends it
 */
export function watchGoaway(tell, scope = globalThis) {
  const Original = scope.WebTransport;
  if (!Original) return () => {};
  class Watched extends Original {
    #url;
    #opened = false;

    constructor(url, options) {
      super(url, options);
      this.#url = new URL(url);
    }

    async createBidirectionalStream(...words) {
      const isControl = !this.#opened && ["moqt-15", "moqt-16"].includes(this.protocol);
      this.#opened = true;
      const stream = await super.createBidirectionalStream(...words);
      if (!isControl) return stream;
      return { readable: withoutGoaway(stream.readable, () => tell(this.#url)), writable: stream.writable };
    }
  }
  scope.WebTransport = Watched;
  return () => {
    if (scope.WebTransport === Watched) scope.WebTransport = Original;
  };
}

/** The option of `WebTransport` for a certificate that no authority signed. @param {string} [sha256] - in hexadecimal */
export function hashOption(sha256) {
  if (!sha256) return {};
  const value = Uint8Array.from(sha256.match(/../g), (byte) => Number.parseInt(byte, 16));
  return { serverCertificateHashes: [{ algorithm: "sha-256", value }] };
}

// --- Small things ---

function environment(given = {}) {
  const own = (name) => (name in given ? given[name] : globalThis[name]);
  let storage;
  try {
    storage = "storage" in given ? given.storage : globalThis.localStorage;
  } catch {
    /* A page in a sandbox has none. */
  }
  return {
    fetch: given.fetch ?? ((...words) => globalThis.fetch(...words)),
    WebTransport: own("WebTransport"),
    setTimeout: given.setTimeout ?? ((act, wait) => globalThis.setTimeout(act, wait)),
    clearTimeout: given.clearTimeout ?? ((handle) => globalThis.clearTimeout(handle)),
    now: given.now ?? (() => performance.now()),
    wallNow: given.wallNow ?? (() => Date.now()),
    random: given.random ?? Math.random,
    isHidden: given.isHidden ?? (() => globalThis.document?.hidden === true),
    storage,
  };
}

function endpointOf(address) {
  const url = new URL(address);
  return `${url.origin}${url.pathname === "/" ? "/v1/place" : url.pathname}`;
}

const GOAWAY = 0x10;

/** The messages of a control stream (type, 16 bits of length, body) but for GOAWAY. */
function withoutGoaway(readable, tell) {
  const reader = readable.getReader();
  let kept = new Uint8Array();
  const take = (bytes) => {
    const whole = new Uint8Array(kept.length + bytes.length);
    whole.set(kept);
    whole.set(bytes, kept.length);
    const passed = [];
    let at = 0;
    for (;;) {
      const size = whole.length > at ? 1 << (whole[at] >> 6) : 1; // of the type: two bits say how long it is
      const body = at + size + 2;
      if (whole.length < body) break;
      const end = body + (whole[body - 2] << 8) + whole[body - 1];
      if (whole.length < end) break;
      if (size === 1 && whole[at] === GOAWAY) tell();
      else passed.push(...whole.subarray(at, end));
      at = end;
    }
    kept = whole.slice(at);
    return Uint8Array.from(passed);
  };
  return new ReadableStream({
    type: "bytes",
    async pull(controller) {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) {
          controller.close();
          controller.byobRequest?.respond(0);
          return;
        }
        const passed = take(value);
        if (passed.length > 0) {
          controller.enqueue(passed);
          return;
        }
      }
    },
    cancel: (reason) => reader.cancel(reason),
  });
}

function isManifest(document) {
  const candidates = document?.candidates;
  if (!Array.isArray(candidates) || candidates.length === 0) return false;
  return candidates.every(({ id, uri }) => typeof id === "string" && typeof uri === "string" && URL.canParse(uri));
}

function isHash(text) {
  return /^[0-9a-f]{64}$/.test(text);
}

/** What is left of a namespace beneath the path that is dialled. */
function beneath(namespace, path) {
  const fields = (text) => text.split("/").filter(Boolean);
  return fields(namespace).slice(fields(path).length).join("/");
}

/** The same address with other parameters; null takes one away. The rest stays as it was written. */
function withQuery(uri, changes) {
  const [base, query = ""] = uri.split("?");
  const kept = query.split("&").filter((pair) => pair && !(pair.split("=")[0] in changes));
  for (const [name, value] of Object.entries(changes)) {
    if (value !== null) kept.push(`${name}=${encodeURIComponent(value)}`);
  }
  return kept.length ? `${base}?${kept.join("&")}` : base;
}

/** Tells two tokens apart; says nothing else about them. */
function digest(text) {
  let a = 0xdeadbeef;
  let b = 0x41c6ce57;
  for (const character of text) {
    a = Math.imul(a ^ character.codePointAt(0), 2654435761);
    b = Math.imul(b ^ character.codePointAt(0), 1597334677);
  }
  return ((a >>> 0) * 2 ** 20 + ((b >>> 0) & 0xfffff)).toString(36);
}
