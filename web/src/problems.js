// What can be wrong, in words for whoever watches. Every problem has a kind, for tests and styles, and two sentences.

/**
 * @typedef {object} Problem
 * @property {string} kind
 * @property {string} title - what is wrong
 * @property {string} advice - what to do about it, or what happens next
 * @property {boolean} final - trying again cannot help
 */

/** How long a relay has to answer over UDP before we say that it does not. */
export const UDP_ANSWERS_WITHIN_MS = 3000;

export const problems = {
  settings: (message) => problem("settings", message, "Whoever runs this page has to correct it.", true),

  insecurePage: () =>
    problem(
      "insecure-page",
      "This page was opened over plain http.",
      "Browsers allow live streams only on https:// pages and on http://127.0.0.1. Open it there.",
      true,
    ),

  noWebTransport: () =>
    problem(
      "no-webtransport",
      "This browser has no WebTransport.",
      "Chrome, Edge and Opera from version 97 on have it, and Firefox from 114 on. Please open this page in one of them.",
      true,
    ),

  noDecoder: () =>
    problem(
      "no-decoder",
      "This browser cannot decode video in a page (it has no WebCodecs).",
      "Chrome and Edge from version 94 on can. Please open this page in one of them.",
      true,
    ),

  noUdp: (host) =>
    problem(
      "no-udp",
      `${host} does not answer over UDP.`,
      "Company networks, VPNs and some hotels block UDP. Another network, such as a phone's, usually helps. We keep trying.",
    ),

  refused: (host) =>
    problem(
      "refused",
      `${host} refused the connection.`,
      "It is there, but its certificate has changed or the link's access token is not valid. Reloading may help.",
    ),

  noCommonVersion: (host, ours) =>
    problem(
      "no-common-version",
      `This page and ${host} speak different versions of the protocol.`,
      `The page speaks ${ours}. Reload it; if that does not help, relay and page are not of the same release.`,
    ),

  unauthorized: () =>
    problem(
      "unauthorized",
      "The relay did not let this page in.",
      "The link's access token is missing, has expired or is for another show. Ask for a new link.",
      true,
    ),

  notPlaced: (reason) =>
    problem(
      "not-placed",
      "No relay may serve this page.",
      `The link's access token is missing, has expired or is for another show, or it is not shown where you are (${reason}).`,
      true,
    ),

  noRelay: () =>
    problem("no-relay", "There is no relay to go to right now.", "None is free, or nobody answers. We keep asking."),

  closed: (host, code) => byCode(code, host, []) ?? problems.lost(host),

  lost: (host) => problem("lost", `The connection to ${host} was lost.`, "We are connecting again."),

  noPublisher: (namespace) =>
    problem(
      "no-publisher",
      `Nobody is broadcasting ${namespace} right now.`,
      "The picture starts by itself as soon as somebody does.",
    ),

  noPicture: () =>
    problem(
      "no-picture",
      "The broadcast is there, but no picture arrives.",
      "Its publisher may have paused. We keep listening.",
    ),

  unsupportedCodec: (codecs) =>
    problem(
      "unsupported-codec",
      `This browser cannot decode the video (${codecs}).`,
      "Another browser may be able to.",
      true,
    ),
};

/**
 * What a failed attempt to connect means.
 *
 * A relay that is there but unwilling answers within a round trip; silence is UDP that does not get through.
 *
 * @param {{tookMs: number, host: string, protocol?: string, offered: string[], closeCode?: number}} attempt
 * @returns {Problem}
 */
export function diagnose({ tookMs, host, protocol, offered, closeCode }) {
  const told = byCode(closeCode, host, offered);
  if (told) return told;
  if (protocol !== undefined && !offered.includes(protocol)) return problems.noCommonVersion(host, offered.join(", "));
  if (tookMs >= UDP_ANSWERS_WITHIN_MS) return problems.noUdp(host);
  return problems.refused(host);
}

// Session termination codes of draft-ietf-moq-transport-16, "Termination".
const UNAUTHORIZED = 0x2;
const VERSION_NEGOTIATION_FAILED = 0x15;

function byCode(code, host, offered) {
  if (code === UNAUTHORIZED) return problems.unauthorized();
  if (code === VERSION_NEGOTIATION_FAILED) return problems.noCommonVersion(host, offered.join(", "));
  return undefined;
}

function problem(kind, title, advice, final = false) {
  return { kind, title, advice, final };
}
