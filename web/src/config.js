// Where the page connects to and what it shows: config.json beside the page, each value overridden by the query string.

/**
 * Read the settings of this page.
 *
 * @param {string} search - the query string of the page's address
 * @param {(path: string) => Promise<unknown>} load - reads JSON from beside the page; rejects where there is none
 * @returns {Promise<Settings>}
 *
 * @typedef {object} Settings
 * @property {URL | undefined} relay - the relay's WebTransport address; undefined where the page is placed
 * @property {{control: string[], token: string} | undefined} placement - where to ask for a relay, and with what
 * @property {string} relayName - what to call that relay
 * @property {string} certificate - SHA-256 of its certificate in hexadecimal; empty where a certificate authority vouches
 * @property {string} namespace - the broadcast, its fields joined by "/"
 * @property {boolean} chat - whether there is a chat box
 */
export async function readSettings(search, load) {
  const query = new URLSearchParams(search);
  const file = object(await load("config.json").catch(() => ({})));
  const relay = object(file.relay);
  const placement = query.has("relay") ? undefined : readPlacement(query, object(file.placement));
  const address = query.get("relay") ?? string(relay.url);
  if (placement) return { ...readRest(query, file), relay: undefined, relayName: "", certificate: "", placement };
  if (!address) throw new SettingsError("No relay is named: neither config.json nor ?relay= says where to connect.");
  const url = parseRelayUrl(address);
  return {
    relay: url,
    relayName: query.get("name") ?? (string(relay.name) || url.host),
    certificate: checkHash(query.get("certificate") ?? string(relay.certificate_sha256)),
    placement: undefined,
    ...readRest(query, file),
  };
}

function readPlacement(query, file) {
  const named = query.has("place") ? query.getAll("place") : Array.isArray(file.control) ? file.control.map(string) : [];
  const control = named.filter(Boolean);
  if (control.length === 0) return undefined;
  const wrong = control.find((address) => !/^https?:\/\//.test(address) || !URL.canParse(address));
  if (wrong !== undefined) throw new SettingsError(`“${wrong}” is no address to ask for a relay.`);
  const token = query.get("jwt") ?? string(file.token);
  if (!token) throw new SettingsError("Asking for a relay takes an access token: placement.token in config.json, or ?jwt=.");
  return { control, token };
}

function readRest(query, file) {
  return {
    namespace: trimSlashes(query.get("namespace") ?? (string(file.namespace) || "live/demo")),
    chat: query.has("chat") ? query.get("chat") !== "off" : file.chat !== false,
  };
}

/** The settings cannot be used; the message says why in words for a viewer. */
export class SettingsError extends Error {}

function parseRelayUrl(address) {
  let url;
  try {
    url = new URL(address);
  } catch {
    throw new SettingsError(`The relay's address “${address}” is not an address.`);
  }
  if (url.protocol !== "https:") throw new SettingsError("The relay's address has to begin with https://.");
  return url;
}

function checkHash(text) {
  const hash = text.trim().toLowerCase().replaceAll(":", "");
  if (hash && !/^[0-9a-f]{64}$/.test(hash)) {
    throw new SettingsError("The certificate's hash has to be 64 hexadecimal digits.");
  }
  return hash;
}

function trimSlashes(path) {
  return path.split("/").filter(Boolean).join("/");
}

function object(value) {
  return typeof value === "object" && value !== null ? value : {};
}

function string(value) {
  return typeof value === "string" ? value : "";
}
