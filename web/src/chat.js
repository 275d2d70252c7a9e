// Chat beside the picture: every sender publishes a track of their own under <broadcast>/chat, and everyone listens.
//
// A message is one object in a group of its own, {"name", "text", "at"}; there is no history beyond what the relay still
// holds of each sender's last group. A sender announces itself with its first message, so silent viewers cost nothing.

import { Broadcast, Path, Time } from "@moq/net";
import { Effect } from "@moq/signals";

const TRACK = "messages";
const MOST_CHARACTERS = 500;
const MOST_NAME_CHARACTERS = 40;
const MOST_SENDERS = 200;
const MOST_MESSAGES_A_SECOND = 5; // of one sender; more are dropped
const MOST_REMEMBERED = 20; // of one sender's messages
const KEPT_MS = 60_000; // how long our own messages can still be asked for

/** The chat of one broadcast over whatever session there is. */
export class Chat {
  #prefix;
  #signals = new Effect();
  #connection;
  #onMessage;
  #sender = crypto.randomUUID().slice(0, 8);
  #heard = new Heard();
  #track;

  /**
   * @param {Signal<Established | undefined>} connection
   * @param {string} namespace - the broadcast's
   * @param {(message: {id: string, name: string, text: string, at: number, own: boolean}) => void} onMessage
   */
  constructor(connection, namespace, onMessage) {
    this.#prefix = Path.from(namespace, "chat");
    this.#connection = connection;
    this.#onMessage = onMessage;
    this.#signals.run((effect) => {
      const session = effect.get(connection);
      if (session) this.#listen(effect, session);
    });
  }

  /** Say something under a name. @returns {boolean} whether there was a session to say it on */
  send(name, text) {
    const trimmed = text.trim().slice(0, MOST_CHARACTERS);
    if (!trimmed || !this.#connection.peek()) return false;
    this.#track ??= this.#announce();
    const message = { name: name.trim().slice(0, MOST_NAME_CHARACTERS), text: trimmed, at: Date.now() };
    this.#track.writeFrame({
      payload: new TextEncoder().encode(JSON.stringify(message)),
      timestamp: Time.Timestamp.now(),
    });
    this.#onMessage({ ...message, id: this.#sender, own: true });
    return true;
  }

  close() {
    this.#signals.close();
  }

  /** Publish our track, now and on every session to come. */
  #announce() {
    const broadcast = new Broadcast.Producer();
    const track = broadcast.createTrack(TRACK, { latencyMax: KEPT_MS });
    this.#signals.run((effect) => {
      effect.get(this.#connection)?.publish(Path.join(this.#prefix, Path.from(this.#sender)), broadcast);
    });
    this.#signals.cleanup(() => broadcast.close());
    return track;
  }

  #listen(effect, session) {
    const announced = session.announced(this.#prefix);
    effect.cleanup(() => announced.close());
    const senders = new Map();
    effect.cleanup(() => {
      for (const stop of senders.values()) stop();
    });
    effect.spawn(async () => {
      for (;;) {
        const entry = await Promise.race([effect.cancel, announced.next()]).catch(() => undefined);
        if (!entry) return;
        senders.get(entry.path)?.();
        senders.delete(entry.path);
        if (!entry.active || entry.path === this.#sender || senders.size >= MOST_SENDERS) continue;
        senders.set(entry.path, this.#hear(session, entry.path));
      }
    });
  }

  /** Follow one sender. @returns {() => void} to stop */
  #hear(session, sender) {
    const broadcast = session.consume(Path.join(this.#prefix, sender));
    const track = broadcast.track(TRACK).subscribe({ priority: 90, ordered: true });
    const rate = new Rate(MOST_MESSAGES_A_SECOND);
    const read = async () => {
      for (;;) {
        const frame = await track.readFrame();
        if (!frame) return;
        const message = parse(frame.payload);
        if (!message || !this.#heard.isNew(sender, message) || !rate.allows(performance.now())) continue;
        this.#onMessage({ ...message, id: sender, own: false });
      }
    };
    read().catch(() => {}); // a sender that goes away ends its track with an error as often as not
    return () => {
      track.close();
      broadcast.close();
    };
  }
}

/** A message that somebody else wrote, or undefined where it is not one. */
export function parse(payload) {
  if (payload.byteLength > 4 * MOST_CHARACTERS + 1000) return undefined;
  let value;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload));
  } catch {
    return undefined;
  }
  if (typeof value?.text !== "string" || !value.text.trim()) return undefined;
  return {
    name: (typeof value.name === "string" ? value.name : "").slice(0, MOST_NAME_CHARACTERS),
    text: value.text.slice(0, MOST_CHARACTERS),
    at: Number.isFinite(value.at) ? value.at : Date.now(),
  };
}

/** Remembers what senders said lately: whoever asks anew, after a lost session, gets their last message once more. */
export class Heard {
  #last = new Map(); // sender -> the last messages' times and texts

  isNew(sender, { at, text }) {
    const key = `${at} ${text}`;
    const last = this.#last.get(sender) ?? [];
    if (last.includes(key)) return false;
    this.#last.delete(sender);
    this.#last.set(sender, [...last.slice(1 - MOST_REMEMBERED), key]);
    if (this.#last.size > MOST_SENDERS) this.#last.delete(this.#last.keys().next().value);
    return true;
  }
}

/** So many a second, not more. */
export class Rate {
  #most;
  #times = [];

  constructor(most) {
    this.#most = most;
  }

  allows(at) {
    this.#times = this.#times.filter((time) => at - time < 1000);
    if (this.#times.length >= this.#most) return false;
    this.#times.push(at);
    return true;
  }
}
