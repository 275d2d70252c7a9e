// One MoQT session to the relay, made again when it is lost; and, when it cannot be made, why, in words.

import { Connection, Path } from "@moq/net";
import { Signal } from "@moq/signals";
import { shareDiscovery } from "./discovery.js";
import { diagnose, problems, UDP_ANSWERS_WITHIN_MS } from "./problems.js";

/** What @moq/net 0.3.4 speaks without faults to a relay that keeps to the drafts. */
export const PROTOCOLS = ["moqt-16"];
/** Every version there is or may be: a relay that takes one of these but none of ours speaks another version. */
const ALL_PROTOCOLS = Array.from({ length: 16 }, (_, index) => `moqt-${15 + index}`);

const RETRY_FIRST_MS = 500;
const RETRY_MOST_MS = 5000;

/** Keeps one session up. `established` holds it for everyone who publishes or watches, undefined while there is none. */
export class RelayConnection {
  established = new Signal(undefined);
  /** "connecting", "connected" or "waiting"; the last with a problem. */
  state = new Signal("connecting");
  problem = new Signal(undefined);
  #url;
  #certificate;
  #namespace;
  #wake;
  #transport;
  #closed = false;

  /**
   * @param {URL | undefined} url - undefined: wait until `go` says where
   * @param {string} certificate - SHA-256 of the relay's certificate in hexadecimal, or nothing
   * @param {string} namespace - the broadcast below which the page looks for others
   */
  constructor(url, certificate, namespace) {
    this.#url = url;
    this.#certificate = certificate;
    this.#namespace = Path.from(namespace);
    void this.#run();
  }

  /** Do not wait for the next attempt. */
  retryNow() {
    this.#wake?.();
  }

  /** Go to another relay at once, whatever this one does. */
  go(url, certificate) {
    this.#url = url;
    this.#certificate = certificate;
    this.established.peek()?.close();
    this.#transport?.close();
    this.#wake?.();
  }

  /** Say why there is no relay to go to. */
  fail(problem) {
    this.problem.set(problem);
    this.state.set("waiting");
  }

  close() {
    this.#closed = true;
    this.established.peek()?.close();
    this.#wake?.();
  }

  async #run() {
    let wait = RETRY_FIRST_MS;
    while (!this.#closed) {
      this.state.set("connecting");
      const url = this.#url;
      if (url === undefined) {
        await this.#pause();
        continue;
      }
      const problem = await this.#session(() => {
        wait = RETRY_FIRST_MS;
      });
      if (this.#closed) return;
      if (this.#url !== url) {
        wait = RETRY_FIRST_MS;
        continue;
      }
      this.problem.set(problem);
      this.state.set("waiting");
      // What cannot get better here may elsewhere: `go` wakes us.
      await this.#pause(problem.final ? undefined : wait * (0.75 + Math.random() / 2));
      wait = Math.min(wait * 2, RETRY_MOST_MS);
    }
  }

  /** Make one session and stay with it until it ends. @returns {Promise<Problem>} why it ended */
  async #session(onConnected) {
    const host = this.#url.host;
    const began = performance.now();
    const took = () => performance.now() - began;
    const transport = this.#open(PROTOCOLS);
    this.#transport = transport;
    let closeCode;
    transport.closed.then((info) => (closeCode = info?.closeCode)).catch(() => {});
    const ready = await within(UDP_ANSWERS_WITHIN_MS, transport.ready.then(() => true));
    if (!ready) {
      const tookMs = took();
      transport.close();
      const protocol = tookMs < UDP_ANSWERS_WITHIN_MS ? await this.#otherProtocol() : undefined;
      return diagnose({ tookMs, host, offered: PROTOCOLS, protocol });
    }
    if (!PROTOCOLS.includes(transport.protocol)) {
      transport.close();
      return diagnose({ tookMs: took(), host, offered: PROTOCOLS, protocol: transport.protocol });
    }
    const session = await within(UDP_ANSWERS_WITHIN_MS, Connection.connect(this.#url, { transport }));
    if (!session) {
      transport.close();
      return diagnose({ tookMs: took(), host, offered: PROTOCOLS, protocol: transport.protocol, closeCode });
    }
    onConnected();
    this.problem.set(undefined);
    this.established.set(shareDiscovery(session, this.#namespace));
    this.state.set("connected");
    await session.closed.catch(() => {});
    this.established.set(undefined);
    return closeCode ? problems.closed(host, closeCode) : problems.lost(host);
  }

  /** The version that the relay takes when it may have any; undefined where it takes nobody. */
  async #otherProtocol() {
    const transport = this.#open(ALL_PROTOCOLS);
    const ready = await within(UDP_ANSWERS_WITHIN_MS, transport.ready.then(() => true));
    const { protocol } = transport;
    transport.close();
    return ready ? protocol : undefined;
  }

  #open(protocols) {
    const options = { allowPooling: false, congestionControl: "low-latency", protocols };
    if (this.#certificate) {
      const bytes = Uint8Array.from(this.#certificate.match(/../g), (byte) => Number.parseInt(byte, 16));
      options.serverCertificateHashes = [{ algorithm: "sha-256", value: bytes }];
    }
    const transport = new WebTransport(this.#url, options);
    transport.closed.catch(() => {});
    return transport;
  }

  /** Wait so long, or without a number until somebody wakes us. */
  #pause(milliseconds) {
    return new Promise((resolve) => {
      const timer = milliseconds === undefined ? undefined : setTimeout(resolve, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** The promise's value, or undefined where it fails or takes longer. */
function within(milliseconds, promise) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(undefined), milliseconds);
    promise.then(
      (value) => {
        clearTimeout(timer);
        resolve(value);
      },
      () => {
        clearTimeout(timer);
        resolve(undefined);
      },
    );
  });
}
