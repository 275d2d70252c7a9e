// What the operators' API says, as the map shows it. No DOM.

export const LOSSY = 0.01;
export const STALE_S = 5;
export const MOST_ARCS = 260;
export const MOST_EVENTS = 200;

/** "serving", "draining", "cordoned", "detached" or "dead": what a relay is worth now. */
export function nodeState(node) {
  if (node.condition === "dead") return "dead";
  if (node.condition !== "alive" || !node.connected) return "detached";
  return node.stage === "serving" ? "serving" : node.stage === "cordoned" ? "cordoned" : "draining";
}

/** "good", "lossy", "stale" or "down". */
export function linkState(link) {
  if (!link.usable) return "down";
  if (link.age_s > STALE_S) return "stale";
  return link.loss_ratio >= LOSSY ? "lossy" : "good";
}

const WORST = ["good", "stale", "lossy", "down"];

/** Links as they are drawn: each direction, or, where these are too many, the worst from region to region. */
export function drawnLinks(links, nodes, most = MOST_ARCS) {
  const region = new Map(nodes.map((node) => [node.id, node.region]));
  const there = links.filter((link) => region.has(link.sender) && region.has(link.receiver));
  const each = (link) => ({ key: `${link.sender}>${link.receiver}`, from: link.sender, to: link.receiver, count: 1, ...told(link) });
  if (there.length <= most) return { byRegion: false, links: there.map(each) };
  const found = new Map();
  const first = new Map();
  for (const node of [...nodes].sort((one, other) => (one.id < other.id ? -1 : 1))) {
    if (!first.has(node.region)) first.set(node.region, node.id);
  }
  for (const link of there) {
    const [from, to] = [region.get(link.sender), region.get(link.receiver)];
    if (from === to) continue;
    const key = `${from}>${to}`;
    const before = found.get(key);
    const now = told(link);
    if (!before) {
      found.set(key, { key, from: first.get(from), to: first.get(to), fromRegion: from, toRegion: to, count: 1, ...now });
      continue;
    }
    before.count += 1;
    before.rttMs = Math.min(before.rttMs, now.rttMs);
    before.loss = Math.max(before.loss, now.loss);
    if (WORST.indexOf(now.state) > WORST.indexOf(before.state)) before.state = now.state;
  }
  const worst = (link) => -WORST.indexOf(link.state);
  const ordered = [...found.values()].sort((one, other) => worst(one) - worst(other) || one.rttMs - other.rttMs);
  return { byRegion: true, links: ordered.slice(0, most) };
}

function told(link) {
  return { state: linkState(link), rttMs: link.rtt_ms, loss: link.loss_ratio, jitterMs: link.jitter_ms };
}

/** Streams with the relays that carry them as a tree; also from controllers that only count the carriers. */
export function streamTrees(document) {
  const rows = Array.isArray(document) ? document.map(older) : (document?.streams ?? []);
  const byName = new Map();
  for (const row of rows) {
    if (!byName.has(row.namespace)) byName.set(row.namespace, []);
    byName.get(row.namespace).push(row);
  }
  return [...byName].sort(([one], [other]) => (one < other ? -1 : 1)).map(([namespace, carriers]) => tree(namespace, carriers));
}

function older(row) {
  return { namespace: row.namespace, relay: row.origin, source: "publisher", carriers: row.carriers };
}

function tree(namespace, rows) {
  const beneath = new Map();
  const relays = new Set(rows.map((row) => row.relay));
  const roots = [];
  const first = (row) => (row.source === "publisher" ? 0 : 1);
  for (const row of [...rows].sort((one, other) => first(one) - first(other))) {
    // Whose source does not say that it carries it stands at the top too: nothing is left out.
    if (row.source === "publisher" || !relays.has(row.source)) roots.push(row);
    else beneath.set(row.source, [...(beneath.get(row.source) ?? []), row]);
  }
  const seen = new Set();
  const lines = [];
  const walk = (row, depth) => {
    if (seen.has(row)) return;
    seen.add(row);
    lines.push({ ...row, depth });
    for (const next of beneath.get(row.relay) ?? []) walk(next, depth + 1);
  };
  for (const row of [...roots, ...rows]) walk(row, 0);
  const sum = (name) => rows.reduce((total, row) => total + (row[name] ?? 0), 0);
  return {
    namespace,
    lines,
    relays,
    edges: rows.filter((row) => relays.has(row.source)).map((row) => `${row.source}>${row.relay}`),
    subscribers: sum("subscribers"),
    bytesPerS: sum("bytes_per_s"),
    told: rows.some((row) => row.tracks !== undefined),
  };
}

/** The newest events, newest first, without one twice. */
export function newest(before, more, most = MOST_EVENTS) {
  const known = new Map([...before, ...more].map((event) => [event.number, event]));
  return [...known.values()].sort((one, other) => other.number - one.number).slice(0, most);
}

/** "183 ms", "0.42 %", "12.3 Mbit/s", "1.2 k". */
export const ms = (value) => (value === null || value === undefined ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`);
export const percent = (ratio) => {
  if (ratio === null || ratio === undefined) return "–";
  const value = 100 * ratio;
  return `${value === 0 ? 0 : value < 0.01 ? "<0.01" : value < 10 ? value.toPrecision(2) : Math.round(value)} %`;
};
export const rate = (bytesPerS) => {
  if (bytesPerS === null || bytesPerS === undefined) return "–";
  const bits = 8 * bytesPerS;
  if (bits >= 1e9) return `${(bits / 1e9).toFixed(1)} Gbit/s`;
  return bits >= 1e6 ? `${(bits / 1e6).toFixed(1)} Mbit/s` : `${Math.round(bits / 1e3)} kbit/s`;
};
export const count = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en").replaceAll(",", " "));
