// The picture: @moq/watch's parts put together, with our own eyes on what arrives and our own choice of rendition.

import { Path } from "@moq/net";
import { Effect, Signal } from "@moq/signals";
import { Audio, Broadcast, Sync, Video } from "@moq/watch";
import { Arrivals } from "./arrivals.js";
import { Choice } from "./choice.js";
import { Playout } from "./playout.js";

const LATENCY_MS = 160; // with a frame of 40 ms, @moq/watch holds back the 200 ms that the house counts stalls by
const TICK_MS = 50;
const MOST_PLAUSIBLE_LATENCY_MS = 600_000; // beyond this the publisher's timestamps are not wall time
const MOST_EVENTS = 500;

/** Plays one broadcast on one canvas and measures it. */
export class Player {
  playout = new Playout();
  arrivals = new Arrivals();
  frames = 0;
  events = []; // { at, type, ... }: what happened when, by performance.now()
  #signals = new Effect();
  #choice;
  #automatic = true;
  #enabled = new Signal(true);
  #target = new Signal(undefined);
  #bytes = 0;
  #newest = Number.NEGATIVE_INFINITY; // media time of the newest frame that came
  #watched;

  /**
   * @param {Getter<Established | undefined>} connection
   * @param {string} namespace
   * @param {HTMLCanvasElement} canvas
   */
  constructor(connection, namespace, canvas) {
    this.broadcast = new Broadcast({ connection, name: Path.from(namespace), enabled: true });
    this.source = new Video.Source({
      broadcast: this.broadcast,
      target: this.#target,
      supported: Video.Decoder.supported,
    });
    this.audioSource = new Audio.Source({ broadcast: this.broadcast, supported: Audio.Decoder.supported });
    this.sync = new WatchedSync(
      {
        latency: LATENCY_MS,
        connection,
        video: this.source.out.jitter,
        audio: this.audioSource.out.jitter,
      },
      (timestamp) => {
        const at = performance.now();
        // The decoder tells its statistics of this frame right after this call.
        queueMicrotask(() => this.#receive(at, timestamp));
      },
      () => this.#forgetMedia(),
    );
    this.decoder = new Video.Decoder(this.source, this.sync, { enabled: this.#enabled });
    this.renderer = new Video.Renderer(this.decoder, { canvas, visible: "always" });
    this.muted = new Signal(true);
    const audible = new Signal(false);
    this.audio = new Audio.Decoder(this.audioSource, this.sync, { enabled: audible });
    this.emitter = new Audio.Emitter(this.audio, { muted: this.muted, volume: 0.8 });
    this.#signals.proxy(audible, this.emitter.out.enabled);

    this.#signals.run((effect) => this.#follow(effect.get(this.source.out.available)));
    this.#signals.run((effect) => this.#shown(effect.get(this.renderer.out.timestamp)));
    this.#signals.run((effect) => {
      const status = effect.get(this.broadcast.out.status);
      this.note("broadcast", { status });
      if (status === "offline") {
        this.#forgetMedia();
        this.#watched = undefined;
      }
    });
    const timer = setInterval(() => this.#tick(), TICK_MS);
    this.#signals.cleanup(() => clearInterval(timer));
  }

  /** The names of the renditions that this browser can show, lowest first, each with its size and bitrate. */
  get renditions() {
    return ladderOf(this.source.out.available.peek());
  }

  /** The rendition on the screen; undefined before there is one. */
  get rendition() {
    return this.source.out.track.peek();
  }

  /** Whether the page chooses by itself. */
  get automatic() {
    return this.#automatic;
  }

  /** Watch this rendition, or, with undefined, whichever the link allows. */
  choose(name) {
    this.#automatic = name === undefined;
    if (name === undefined) this.#follow(this.source.out.available.peek());
    else this.#switch(name, "viewer");
  }

  /** From the camera to this screen, in milliseconds; undefined where the publisher's timestamps are not wall time. */
  get latencyMs() {
    const shown = this.renderer.out.timestamp.peek();
    if (shown === undefined) return undefined;
    const latency = Date.now() - shown;
    return latency > -1000 && latency < MOST_PLAUSIBLE_LATENCY_MS ? Math.max(latency, 0) : undefined;
  }

  get bitrateKbps() {
    return Math.round(this.arrivals.bitrate(performance.now()));
  }

  close() {
    this.#signals.close();
    for (const part of [this.emitter, this.audio, this.renderer, this.decoder, this.sync]) part.close();
    for (const part of [this.source, this.audioSource, this.broadcast]) part.close();
  }

  #follow(available) {
    const ladder = ladderOf(available);
    if (ladder.length === 0) return;
    if (this.#choice === undefined) {
      this.#choice = new Choice(ladder, this.rendition);
      this.#switch(this.#choice.name, "first");
    } else {
      this.#choice.update(ladder, this.#target.peek()?.name);
    }
  }

  #receive(at, timestamp) {
    const total = this.decoder.out.stats.peek()?.bytesReceived ?? 0;
    const bytes = Math.max(total - this.#bytes, 0);
    this.#bytes = total;
    // @moq/watch begins anew with the last seconds out of its own memory when the catalogue says something new of a
    // rendition, and while it switches it reads two: only what is newer than everything before tells of the link.
    if (timestamp <= this.#newest) return;
    this.#newest = timestamp;
    const excess = this.arrivals.receive(at, timestamp, bytes);
    this.playout.receive(at, timestamp);
    const name = this.#automatic ? this.#choice?.receive(at, excess, bytes) : undefined;
    if (name !== undefined) this.#switch(name, "link", { excess: Math.round(excess) });
  }

  #tick() {
    const at = performance.now();
    const wasStalled = this.playout.stalls;
    this.playout.tick(at);
    if (this.playout.stalls > wasStalled) this.note("stall", {});
    const name = this.#automatic ? this.#choice?.tick(at, this.arrivals.lastAt) : undefined;
    if (name !== undefined) this.#switch(name, "silence");
  }

  #switch(name, reason, details = {}) {
    const from = this.rendition;
    const ladder = this.renditions;
    const rank = (wanted) => ladder.findIndex((rendition) => rendition.name === wanted);
    this.note("switch", { from, to: name, reason, ...details });
    this.arrivals.reset({ keepBaseline: true });
    if (from !== undefined && rank(name) < rank(from)) {
      // Going down the old rendition must not share the narrow link with the new one until that has caught up.
      this.#enabled.set(false);
      setTimeout(() => this.#enabled.set(true));
    }
    this.#target.set({ name });
  }

  #shown(timestamp) {
    if (timestamp === undefined) return;
    this.frames += 1;
    if (this.#watched === this.rendition) return;
    this.#watched = this.rendition;
    this.note("picture", { rendition: this.rendition });
  }

  #forgetMedia() {
    this.playout.reset();
    this.arrivals.reset();
    this.#newest = Number.NEGATIVE_INFINITY;
  }

  /** Write down what happened, for `events`. */
  note(type, details) {
    this.events.push({ at: Math.round(performance.now()), wall: Date.now(), type, ...details });
    if (this.events.length > MOST_EVENTS) this.events.shift();
  }
}

/** @moq/watch's clock, which every arriving frame passes, with somebody looking on. */
class WatchedSync extends Sync {
  #onVideo;
  #onReset;

  constructor(props, onVideo, onReset) {
    super(props);
    this.#onVideo = onVideo;
    this.#onReset = onReset;
  }

  /** The publisher's timeline went back. */
  reset() {
    super.reset();
    this.#onReset?.();
  }

  received(timestamp, label) {
    super.received(timestamp, label);
    if (label === "video") this.#onVideo(timestamp);
  }
}

function ladderOf(available) {
  return Object.entries(available)
    .map(([name, config]) => ({
      name,
      width: config.codedWidth,
      height: config.codedHeight,
      bitrateKbps: Math.round((config.bitrate ?? 0) / 1000),
    }))
    .sort((a, b) => a.bitrateKbps - b.bitrateKbps || (a.height ?? 0) - (b.height ?? 0));
}
