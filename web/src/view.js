// The page's elements: takes plain values and shows them; knows nothing of media or networks.

const SPARK_POINTS = 60;
const MOST_MESSAGES = 200;
const NAME_KEY = "tradewind.name";

/** Everything on the page that changes. */
export class View {
  #latencies = [];
  #shown = new Map();

  constructor(document) {
    this.document = document;
    this.canvas = this.#get("picture");
  }

  /** Name the broadcast and the relay. */
  introduce({ namespace, relayName, chat }) {
    this.document.title = `${namespace} · Tradewind`;
    this.#text("broadcast", namespace);
    this.relay(relayName);
    this.#get("chat").hidden = !chat;
    this.#get("page").classList.toggle("alone", !chat);
    this.#get("name").value = this.document.defaultView.localStorage.getItem(NAME_KEY) ?? "";
  }

  /** Name the relay. */
  relay(name) {
    this.#text("relay", name || "–");
  }

  /** @param {"connecting" | "live" | "stalled" | "waiting" | "problem"} state */
  status(state, text) {
    this.#get("status").dataset.state = state;
    this.#text("status-text", text);
  }

  /** Say what is wrong, or with undefined that nothing is. */
  problem(problem) {
    this.#get("notice").hidden = problem === undefined;
    if (!problem) return;
    this.#text("notice-title", problem.title);
    this.#text("notice-advice", problem.advice);
    this.#get("retry").hidden = problem.final || problem.kind === "no-publisher";
  }

  figures({ latencyMs, rendition, bitrateKbps, stalls, stalledMs, version }) {
    this.#text("latency", latencyMs === undefined ? "–" : String(Math.round(latencyMs)));
    this.#text("rendition", rendition ? titleOf(rendition) : "–");
    this.#text("rendition-detail", rendition ? `${bitrateKbps} kbit/s · ${rendition.name}` : "");
    this.#text("stalls", String(stalls));
    this.#text("stalls-detail", stalls ? `${(stalledMs / 1000).toFixed(1)} s in all` : "none so far");
    this.#text("relay-detail", version ?? "");
  }

  /** Add a second's latency to the little curve. */
  spark(latencyMs) {
    this.#latencies.push(latencyMs);
    if (this.#latencies.length > SPARK_POINTS) this.#latencies.shift();
    const known = this.#latencies.filter((value) => value !== undefined);
    const top = Math.max(400, ...known);
    const path = this.#latencies
      .map((value, index) => ({ x: (index / (SPARK_POINTS - 1)) * 120, value }))
      .filter(({ value }) => value !== undefined)
      .map(({ x, value }, index) => `${index ? "L" : "M"}${x.toFixed(1)} ${(23 - (value / top) * 22).toFixed(1)}`)
      .join("");
    this.#get("spark").firstElementChild.setAttribute("d", path);
  }

  renditions(ladder) {
    const select = this.#get("quality");
    const chosen = select.value;
    const options = [["", "Auto"], ...[...ladder].reverse().map((rendition) => [rendition.name, titleOf(rendition)])];
    select.replaceChildren(
      ...options.map(([value, text]) => {
        const option = this.document.createElement("option");
        option.value = value;
        option.textContent = text;
        return option;
      }),
    );
    select.value = options.some(([value]) => value === chosen) ? chosen : "";
  }

  sound({ available, on }) {
    this.#get("sound").hidden = !available;
    this.#get("sound").setAttribute("aria-pressed", String(on));
  }

  message({ id, name, text, at, own }) {
    const log = this.#get("log");
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    const item = this.document.createElement("li");
    const time = this.document.createElement("time");
    const when = new Date(at);
    time.dateTime = when.toISOString();
    time.textContent = when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const sender = this.document.createElement("b");
    sender.textContent = name || `viewer ${id.slice(0, 4)}`;
    item.style.setProperty("--sender", colourOf(id));
    item.classList.toggle("own", own);
    item.append(time, sender, text);
    log.append(item);
    while (log.childElementCount > MOST_MESSAGES) log.firstElementChild.remove();
    this.#get("empty").hidden = true;
    if (atEnd || own) log.scrollTop = log.scrollHeight;
  }

  onRetry(act) {
    this.#get("retry").addEventListener("click", act);
  }

  onQuality(act) {
    this.#get("quality").addEventListener("change", (event) => act(event.target.value || undefined));
  }

  onSound(act) {
    this.#get("sound").addEventListener("click", act);
  }

  onFullscreen() {
    const screen = this.#get("screen");
    const toggle = () => {
      const { fullscreenElement } = this.document;
      void (fullscreenElement ? this.document.exitFullscreen() : screen.requestFullscreen?.())?.catch(() => {});
    };
    this.#get("fullscreen").addEventListener("click", toggle);
    this.canvas.addEventListener("dblclick", toggle);
  }

  /** @param {(name: string, text: string) => boolean} act - whether the message went out */
  onSend(act) {
    this.#get("compose").addEventListener("submit", (event) => {
      event.preventDefault();
      const name = this.#get("name").value;
      const text = this.#get("text");
      this.document.defaultView.localStorage.setItem(NAME_KEY, name);
      if (act(name, text.value)) text.value = "";
    });
  }

  #get(id) {
    return this.document.getElementById(id);
  }

  #text(id, text) {
    if (this.#shown.get(id) === text) return;
    this.#shown.set(id, text);
    this.#get(id).textContent = text;
  }
}

function titleOf({ name, height }) {
  return height ? `${height}p` : name;
}

/** A sender's colour: the same on every screen, light enough to read on the panel. */
function colourOf(id) {
  let hash = 0;
  for (const character of id) hash = (hash * 31 + character.codePointAt(0)) % 360;
  return `hsl(${hash} 65% 74%)`;
}
