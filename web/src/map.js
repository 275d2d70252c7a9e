// The operators' map: asks the controller's API every second and shows relays, links, streams and events.

import { arc, points, projection, roomed } from "./map_layout.js";
import { count, drawnLinks, ms, newest, nodeState, percent, rate, streamTrees } from "./map_model.js";
import { OUTLINES } from "./map_outline.js";

const EVERY_MS = 1000;
const PATIENCE_MS = 5000;
const KEPT_AS = "tradewind.operator";
const LABELLED = 28;
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

const known = { nodes: [], links: [], streams: null, events: [] };
let token = "";
let picked = null;
let heardAt = 0;
let failure = "";
let project = null;
let round = 0;

// --- The token ---

function takeToken() {
  const found = /(?:^#|&)token=([^&]+)/.exec(location.hash);
  if (found) {
    // Out of the address before anything else: nobody reads it over a shoulder or out of the history.
    history.replaceState(null, "", location.pathname + location.search);
    keep(decodeURIComponent(found[1]));
    return true;
  }
  return false;
}

function keep(text) {
  token = text.trim();
  try {
    if (token) sessionStorage.setItem(KEPT_AS, token);
    else sessionStorage.removeItem(KEPT_AS);
  } catch {
    // Without storage it lasts until the tab is loaded again.
  }
}

function ask(why) {
  keep("");
  $("gate-why").textContent = why || "It stays in this tab: it is in no address and in no log.";
  $("gate-why").toggleAttribute("data-bad", Boolean(why));
  $("gate").hidden = false;
  $("page").hidden = true;
  $("token").focus();
}

function begin() {
  $("gate").hidden = true;
  $("page").hidden = false;
  round += 1;
  poll(round);
}

// --- Asking ---

class Refused extends Error {}

async function get(path, missing) {
  const answer = await fetch(path, {
    headers: { Authorization: `Bearer ${token}` },
    credentials: "omit",
    cache: "no-store",
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  if (answer.status === 404 && missing !== undefined) return missing;
  if (answer.status === 401 || answer.status === 403) {
    const said = await answer.json().catch(() => ({}));
    throw new Refused(said.error ?? `the controller said ${answer.status}`);
  }
  if (!answer.ok) throw new Error(`the controller said ${answer.status}`);
  return answer.json();
}

async function look() {
  const last = known.events[0]?.number;
  const [nodes, links, streams, events] = await Promise.all([
    get("v1/nodes"),
    get("v1/links"),
    get("v1/streams", { streams: [] }),
    get(last === undefined ? "v1/events?limit=100" : `v1/events?after=${last}&limit=1000`),
  ]);
  Object.assign(known, { nodes, links, streams, events: newest(known.events, events) });
  heardAt = Date.now();
  failure = "";
}

async function poll(mine) {
  while (mine === round) {
    const began = Date.now();
    if (!document.hidden) {
      try {
        await look();
        if (mine !== round) return;
        draw();
      } catch (error) {
        if (mine !== round) return;
        if (error instanceof Refused) {
          ask(error.message);
          return;
        }
        failure = error.name === "TimeoutError" ? "no answer" : error.message;
      }
      say();
    }
    await new Promise((resolve) => setTimeout(resolve, Math.max(50, EVERY_MS - (Date.now() - began))));
  }
}

/** Whether the controller is there, and since when not. */
function say() {
  const age = heardAt ? Math.round((Date.now() - heardAt) / 1000) : null;
  const gone = Boolean(failure);
  $("status").dataset.state = gone ? "gone" : "live";
  $("status").title = failure;
  $("status-text").textContent = gone ? `Controller gone${age === null ? "" : `, as of ${age} s ago`}` : "Live";
  $("page").classList.toggle("gone", gone);
}

// --- Drawing ---

/** An element; `text` and attributes are set only where they change, so that hovering and focus stay. */
function make(name, attributes = {}, svg = false) {
  const element = svg ? document.createElementNS(SVG, name) : document.createElement(name);
  set(element, attributes);
  return element;
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") {
      if (element.textContent !== value) element.textContent = value;
    } else if (value === null || value === undefined || value === false) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
}

/** One child of `parent` for each item, in order; those of before are used again. */
function each(parent, items, key, create, update) {
  const before = new Map([...parent.children].map((child) => [child.key, child]));
  let at = parent.firstChild;
  for (const item of items) {
    const name = key(item);
    let child = before.get(name);
    if (child) before.delete(name);
    else {
      child = create(item);
      child.key = name;
    }
    update(child, item);
    if (child === at) at = at.nextSibling;
    else parent.insertBefore(child, at);
  }
  for (const child of before.values()) child.remove();
}

function pick(kind, key) {
  picked = picked?.kind === kind && picked.key === key ? null : { kind, key };
  draw();
}

function draw() {
  const trees = streamTrees(known.streams);
  drawSums();
  drawMap(trees);
  drawNodes();
  drawStreams(trees);
  drawEvents();
  drawPicked();
}

function drawSums() {
  const there = known.nodes.filter((node) => node.condition !== "dead");
  const sum = (name) => there.reduce((total, node) => total + (node[name] ?? 0), 0);
  $("sum-relays").textContent = there.length === known.nodes.length ? count(there.length) : `${there.length} of ${known.nodes.length}`;
  $("sum-sessions").textContent = count(sum("sessions"));
  $("sum-egress").textContent = rate(sum("egress_bytes_per_s"));
  $("sum-links").textContent = count(known.links.filter((link) => !link.usable).length);
}

function drawMap(trees) {
  const map = $("map");
  const box = map.getBoundingClientRect();
  if (!box.width || !box.height) return;
  const placed = known.nodes.filter((node) => Number.isFinite(node.latitude) && Number.isFinite(node.longitude));
  const key = [Math.round(box.width), Math.round(box.height), ...placed.map((node) => `${node.latitude},${node.longitude}`).sort()].join(" ");
  if (project?.key !== key) {
    project = { key, ...projection(placed, box.width, box.height) };
    set(map, { viewBox: `0 0 ${project.width} ${project.height}` });
    drawCoasts();
  }
  const radius = known.nodes.length > 150 ? 5 : known.nodes.length > 40 || box.width < 500 ? 7 : 10;
  const where = points(known.nodes, project, radius);
  const { byRegion, links } = drawnLinks(known.links, known.nodes);
  const tree = picked?.kind === "stream" ? trees.find((one) => one.namespace === picked.key) : undefined;
  drawArcs(links, where, radius, tree);
  drawDots(where, radius, tree);
  drawLabels(where, radius, links, byRegion);
  $("empty").hidden = known.nodes.length > 0;
}

function drawCoasts() {
  const rings = OUTLINES.flatMap((ring) =>
    [-1, 0, 1].map((turns) => `M${ring.map(([east, north]) => `${project.xOf(east, turns).toFixed(1)} ${project.y(north).toFixed(1)}`).join("L")}Z`),
  );
  const path = make("path", { d: rings.join("") }, true);
  $("coasts").replaceChildren(path);
}

function isOn(link, tree) {
  if (tree) return tree.edges.includes(link.key);
  if (picked?.kind === "link") return picked.key === link.key;
  return picked?.kind === "node" && (picked.key === link.from || picked.key === link.to);
}

function drawArcs(links, where, radius, tree) {
  const create = (link) => {
    const group = make("g", {}, true);
    group.append(make("path", { class: "arc" }, true), make("path", { class: "reach" }, true), make("title", {}, true));
    group.addEventListener("click", () => pick("link", link.key));
    return group;
  };
  const shown = links.filter((link) => where.has(link.from) && where.has(link.to));
  each($("arcs"), shown, (link) => link.key, create, (group, link) => {
    const { d } = arc(where.get(link.from), where.get(link.to), radius + 5);
    const on = isOn(link, tree);
    const [line, reach, title] = group.children;
    set(line, { d, "marker-end": `url(#head-${link.state})`, "data-state": link.state, "data-strong": on ? "" : null, "data-faint": picked && !on ? "" : null });
    set(reach, { d });
    set(title, { text: described(link) });
  });
}

function described(link) {
  const [from, to] = [link.fromRegion ?? link.from, link.toRegion ?? link.to];
  const many = link.count > 1 ? `, ${link.count} links, the best and the worst of them` : "";
  return `${from} → ${to}: ${ms(link.rttMs)}, ${percent(link.loss)} lost, ${link.state}${many}`;
}

function drawDots(where, radius, tree) {
  const create = (node) => {
    const group = make("g", { class: "node", tabindex: "0", role: "button" }, true);
    group.append(make("circle", { class: "body" }, true), make("circle", { class: "load" }, true), make("title", {}, true));
    group.addEventListener("click", () => pick("node", node.id));
    group.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") pick("node", node.id);
    });
    return group;
  };
  each($("dots"), known.nodes, (node) => node.id, create, (group, node) => {
    const { x, y } = where.get(node.id);
    const [body, load, title] = group.children;
    const on = picked?.kind === "node" && picked.key === node.id;
    set(group, {
      "data-state": nodeState(node),
      "data-picked": on ? "" : null,
      "data-faint": tree && !tree.relays.has(node.id) ? "" : null,
      "aria-label": `${node.id}, ${nodeState(node)}`,
    });
    set(body, { cx: x.toFixed(1), cy: y.toFixed(1), r: radius });
    set(load, { cx: x.toFixed(1), cy: y.toFixed(1), r: (Math.sqrt(Math.min(1, node.load_ratio ?? 0)) * (radius - 1)).toFixed(1) });
    set(title, { text: `${node.id} (${node.region}): ${nodeState(node)}, ${count(node.sessions)} sessions` });
  });
}

function drawLabels(where, radius, links, byRegion) {
  const names = byRegion || known.nodes.length > 24 ? regionNames(where, radius) : nodeNames(where, radius);
  const all = links.length <= LABELLED && !picked;
  const troubled = (link) => !picked && link.state !== "good" && links.length <= 4 * LABELLED;
  const measures = links
    .filter((link) => (all || isOn(link) || troubled(link)) && where.has(link.from) && where.has(link.to))
    .sort((one, other) => (one.state === "good") - (other.state === "good") || other.rttMs - one.rttMs)
    .map((link) => ({ link, ...arc(where.get(link.from), where.get(link.to), radius + 5) }))
    .filter(({ length }) => length > 60)
    .map(({ link, spots }) => ({
      key: `link ${link.key}`,
      text: `${ms(link.rttMs)} · ${percent(link.loss)}`,
      spots: spots.map(({ x, y }) => ({ x, y: y + 4 })),
      size: 10.5,
      class: "measure",
      state: link.state,
    }));
  const labels = roomed([...names, ...measures], project.width);
  each($("labels"), labels, (label) => label.key, () => make("text", {}, true), (element, label) => {
    set(element, { x: label.x.toFixed(1), y: label.y.toFixed(1), text: label.text, class: label.class, "data-state": label.state });
    set(element, { "text-anchor": label.anchor });
  });
}

function nodeNames(where, radius) {
  return known.nodes.map((node) => {
    const { x, y, side } = where.get(node.id);
    const beside = { x: x + side * (radius + 6), y: y + 4, anchor: side < 0 ? "end" : "start" };
    const [above, below] = [{ x, y: y - radius - 7 }, { x, y: y + radius + 15 }];
    const spots = side ? [beside, above, below] : [above, below];
    return { key: `node ${node.id}`, text: node.id, spots, size: 12, always: true };
  });
}

function regionNames(where, radius) {
  const found = new Map();
  for (const node of known.nodes) {
    const { x, y } = where.get(node.id);
    const before = found.get(node.region) ?? { left: x, right: x, top: y };
    found.set(node.region, { left: Math.min(before.left, x), right: Math.max(before.right, x), top: Math.min(before.top, y) });
  }
  return [...found].map(([region, { left, right, top }]) => {
    const spots = [{ x: (left + right) / 2, y: top - radius - 7 }];
    return { key: `region ${region}`, text: region, spots, size: 12, always: true };
  });
}

function drawNodes() {
  const create = (node) => {
    const row = make("tr");
    const name = make("td");
    name.append(make("b"), " ", make("span", { class: "region" }));
    const load = make("td");
    load.append(make("meter", { min: 0, max: 1, high: 0.9, low: 0.75, optimum: 0.3 }));
    row.append(name, make("td", { class: "state" }), make("td", { class: "number" }), load);
    row.addEventListener("click", () => pick("node", node.id));
    return row;
  };
  each($("nodes"), known.nodes, (node) => node.id, create, (row, node) => {
    const [name, state, sessions, load] = row.children;
    set(row, { "data-state": nodeState(node), "data-picked": picked?.kind === "node" && picked.key === node.id ? "" : null });
    set(name.children[0], { text: node.id });
    set(name.children[1], { text: node.region });
    set(state, { text: nodeState(node) });
    set(sessions, { text: count(node.sessions) });
    set(load.firstChild, { value: node.load_ratio ?? 0, title: percent(node.load_ratio) });
  });
}

function drawStreams(trees) {
  const create = (stream) => {
    const item = make("li");
    const button = make("button", { type: "button" });
    button.append(make("span", { class: "name" }), make("span", { class: "what" }));
    button.addEventListener("click", () => pick("stream", stream.namespace));
    item.append(button, make("ul", { class: "tree" }));
    return item;
  };
  each($("streams"), trees.slice(0, 200), (stream) => stream.namespace, create, (item, stream) => {
    const [button, list] = item.children;
    set(item, { "data-picked": picked?.kind === "stream" && picked.key === stream.namespace ? "" : null });
    set(button.children[0], { text: stream.namespace || "(everything)", title: stream.namespace });
    set(button.children[1], { text: stream.told ? `${count(stream.subscribers)} subscribed` : "" });
    each(list, stream.lines, (line) => `${line.relay} ${line.source}`, () => {
      const row = make("li");
      row.append(make("b"), make("span"));
      return row;
    }, (row, line) => {
      set(row, { "data-depth": line.depth });
      row.style.setProperty("--depth", line.depth);
      set(row.children[0], { text: line.relay });
      const carried = line.carriers === undefined ? "" : `carried by ${line.carriers} more`;
      set(row.children[1], { text: stream.told ? `${count(line.subscribers)} · ${rate(line.bytes_per_s)}` : carried });
    });
  });
  $("no-streams").hidden = trees.length > 0;
}

function drawEvents() {
  const create = () => {
    const item = make("li");
    const words = make("span");
    words.append(make("b"), make("span"));
    item.append(make("time"), words);
    return item;
  };
  each($("events"), known.events, (event) => event.number, create, (item, event) => {
    const at = new Date(event.at_wall * 1000);
    const who = [event.relay, event.other].filter(Boolean).join(" > ");
    set(item, { "data-alarm": event.alarm ? "" : null });
    set(item.children[0], { text: at.toLocaleTimeString([], { hour12: false }), datetime: at.toISOString() });
    set(item.children[1].children[0], { text: event.kind.replaceAll("_", " ") });
    set(item.children[1].children[1], { text: ` ${[who, event.detail].filter(Boolean).join(": ")}` });
  });
}

function drawPicked() {
  const [title, rows] = details();
  $("picked").hidden = !title;
  if (!title) return;
  const list = make("dl");
  for (const [name, value] of rows) list.append(make("dt", { text: name }), make("dd", { text: value }));
  $("picked").replaceChildren(make("h3", { text: title }), list);
}

function details() {
  if (picked?.kind === "node") {
    const node = known.nodes.find((one) => one.id === picked.key);
    if (!node) return [null, []];
    const heard = node.heard_age_s === null ? "–" : `${node.heard_age_s.toFixed(1)} s ago`;
    const wanted = node.wanted === node.stage || !node.stage ? [] : [["wanted", node.wanted]];
    const overrides = node.overridden ? [["overrides", count(node.overridden)]] : [];
    return [node.id, [
      ["region", node.region], ["state", nodeState(node)], ...wanted, ["sessions", count(node.sessions)],
      ["load", percent(node.load_ratio)], ["out", rate(node.egress_bytes_per_s)], ["heard", heard], ["table", `generation ${node.generation}`],
      ...overrides,
    ]];
  }
  if (picked?.kind === "link") {
    const link = drawnLinks(known.links, known.nodes).links.find((one) => one.key === picked.key);
    if (!link) return [null, []];
    const many = link.count > 1 ? [["links", count(link.count)]] : [];
    return [`${link.fromRegion ?? link.from} → ${link.toRegion ?? link.to}`, [
      ["state", link.state], ["round trip", ms(link.rttMs)], ["lost", percent(link.loss)], ["jitter", ms(link.jitterMs)], ...many,
    ]];
  }
  return [null, []];
}

// --- Start ---

$("gate").addEventListener("submit", (event) => {
  event.preventDefault();
  keep($("token").value);
  $("token").value = "";
  begin();
});
window.addEventListener("hashchange", () => {
  if (takeToken()) begin();
});
window.addEventListener("resize", () => known.nodes.length && draw());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && picked) pick(picked.kind, picked.key);
});

if (!takeToken()) {
  try {
    keep(sessionStorage.getItem(KEPT_AS) ?? "");
  } catch {
    keep("");
  }
}
if (token) begin();
else ask("");
