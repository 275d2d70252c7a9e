// The viewer page, put together: settings, one session, the picture, the chat, and what the page says about them.

import { Effect } from "@moq/signals";
import { Chat } from "./chat.js";
import { readSettings, SettingsError } from "./config.js";
import { RelayConnection } from "./connection.js";
import { place, watchGoaway } from "../place.js";
import { Player } from "./player.js";
import { problems } from "./problems.js";
import { View } from "./view.js";

const REFRESH_MS = 250;
const PUBLISHER_WITHIN_MS = 2000;
const PICTURE_WITHIN_MS = 4000;

const began = performance.now();
const view = new View(document);

/** What a test, or a headless run, may ask of this page. */
globalThis.tradewind = { snapshot: () => ({ state: "connecting", problem: null, events: [] }) };

void start();

async function start() {
  let settings;
  try {
    settings = await readSettings(location.search, loadJson);
  } catch (error) {
    return stop(problems.settings(error instanceof SettingsError ? error.message : "The page's settings cannot be read."));
  }
  view.introduce(settings);
  const missing = whatIsMissing();
  if (missing) return stop(missing);
  watch(settings);
}

function whatIsMissing() {
  if (!isSecureContext) return problems.insecurePage();
  if (!("WebTransport" in globalThis)) return problems.noWebTransport();
  if (!("VideoDecoder" in globalThis)) return problems.noDecoder();
  return undefined;
}

function watch(settings) {
  const connection = new RelayConnection(settings.relay, settings.certificate, settings.namespace);
  const player = new Player(connection.established, settings.namespace, view.canvas);
  const effects = new Effect();
  const since = { connected: undefined, announced: undefined };

  effects.run((effect) => {
    since.connected = effect.get(connection.established) ? performance.now() : undefined;
  });
  effects.run((effect) => {
    since.announced = effect.get(player.broadcast.out.active) ? performance.now() : undefined;
  });
  effects.run((effect) => {
    effect.get(player.source.out.available);
    view.renditions(player.renditions);
  });
  effects.run((effect) => {
    const available = Object.keys(effect.get(player.audioSource.out.available)).length > 0;
    view.sound({ available, on: !effect.get(player.muted) });
  });

  const placement = settings.placement && follow(settings, connection, player);
  view.onRetry(() => connection.retryNow());
  view.onQuality((name) => player.choose(name));
  view.onSound(() => player.muted.update((muted) => !muted));
  view.onFullscreen();
  if (settings.chat) {
    const chat = new Chat(connection.established, settings.namespace, (message) => view.message(message));
    view.onSend((name, text) => chat.send(name, text));
    globalThis.tradewind.say = (name, text) => chat.send(name, text);
  }

  const refresh = () => show({ settings, connection, player, since });
  setInterval(refresh, REFRESH_MS);
  setInterval(() => view.spark(player.latencyMs), 1000);
  refresh();
  globalThis.tradewind.snapshot = () => snapshot({ settings, connection, player, since });
  globalThis.tradewind.placement = placement;
  globalThis.tradewind.choose = (name) => player.choose(name);
}

/** Have the page placed: go where the answers say, and on when that relay fails. */
function follow(settings, connection, player) {
  const moves = new Effect();
  return place({
    ...settings.placement,
    namespace: settings.namespace,
    path: "/", // the page names its broadcast in full, wherever it goes
    player: {
      setUrl: (uri, { id, certificate }) => {
        settings.relay = new URL(uri);
        settings.relayName = id;
        view.relay(id);
        connection.go(settings.relay, certificate);
      },
      start: (tell) => {
        moves.run((effect) => {
          if (effect.get(connection.state) === "waiting") tell("error");
        });
        const unwatch = watchGoaway((url) => url.host === settings.relay?.host && tell("goaway"));
        return () => {
          unwatch();
          moves.close();
        };
      },
      position: () => player.frames || undefined,
    },
    onChange: ({ state, reason, relay }) => {
      player.note("placement", { state, reason, relay: relay?.id ?? null });
      if (state === "refused") connection.fail(problems.notPlaced(reason));
      else if (state === "waiting" && relay === undefined) connection.fail(problems.noRelay());
    },
  });
}

function show(parts) {
  const { player, connection } = parts;
  const { state, problem } = assess(parts);
  view.problem(problem);
  view.status(state, STATUS_TEXT[state]);
  view.figures({
    latencyMs: state === "live" || state === "stalled" ? player.latencyMs : undefined,
    rendition: player.renditions.find((rendition) => rendition.name === player.rendition),
    bitrateKbps: player.bitrateKbps,
    stalls: player.playout.stalls,
    stalledMs: player.playout.stalledMs,
    version: connection.established.peek()?.version,
  });
}

const STATUS_TEXT = {
  connecting: "Connecting",
  waiting: "Waiting",
  live: "Live",
  stalled: "Buffering",
  problem: "Not playing",
};

/** The state of the whole, and what is wrong where something is. */
function assess({ settings, connection, player, since }) {
  const now = performance.now();
  if (connection.state.peek() !== "connected") {
    const problem = connection.problem.peek();
    return { state: problem ? "problem" : "connecting", problem };
  }
  if (player.source.out.error.peek() === "unsupported") {
    const renditions = Object.values(player.source.out.catalog.peek()?.renditions ?? {});
    const codecs = [...new Set(renditions.map((rendition) => rendition.codec))];
    return { state: "problem", problem: problems.unsupportedCodec(codecs.join(", ")) };
  }
  if (since.announced === undefined) {
    const waited = now - (since.connected ?? now);
    if (waited < PUBLISHER_WITHIN_MS) return { state: "connecting" };
    return { state: "waiting", problem: problems.noPublisher(settings.namespace) };
  }
  const lastAt = player.arrivals.lastAt;
  if (now - Math.max(lastAt ?? 0, since.announced, since.connected ?? 0) > PICTURE_WITHIN_MS) {
    return { state: "waiting", problem: problems.noPicture() };
  }
  if (player.frames === 0) return { state: "connecting" };
  return { state: player.playout.tick(now) ? "stalled" : "live" };
}

function snapshot(parts) {
  const { settings, connection, player } = parts;
  const { state, problem } = assess(parts);
  const latencyMs = player.latencyMs;
  return {
    state,
    problem: problem?.kind ?? null,
    latency_ms: latencyMs === undefined ? null : Math.round(latencyMs),
    rendition: player.rendition ?? null,
    renditions: player.renditions.map((rendition) => rendition.name),
    stalls: player.playout.stalls,
    stalled_ms: Math.round(player.playout.stalledMs),
    frames: player.frames,
    bitrate_kbps: player.bitrateKbps,
    relay: settings.relayName,
    version: connection.established.peek()?.version ?? null,
    since_start_ms: Math.round(performance.now() - began),
    started_at_ms: Math.round(began),
    events: player.events,
  };
}

function stop(problem) {
  view.problem(problem);
  view.status("problem", STATUS_TEXT.problem);
  globalThis.tradewind.snapshot = () => ({ state: "problem", problem: problem.kind, events: [] });
}

async function loadJson(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(String(answer.status));
  return answer.json();
}
