// Stalls as the house counts them: a playout buffer of 200 ms found empty for at least 100 ms.

const BUFFER_MS = 200;
const STALL_MS = 100;
const TOO_FULL_MS = 600; // fuller than this and playout jumps ahead, as a live player does

/**
 * A playout buffer made of timestamps alone: frames go in as they arrive, the clock takes them out.
 *
 * It stands beside the real player, which shows late frames at once rather than keeping a buffer, so that stalls mean the
 * same here as in every other measurement of the house.
 */
export class Playout {
  #position; // media time being shown
  #newest; // media time of the newest frame
  #at; // when position was true
  #emptySince;
  #counted = false;
  stalls = 0;
  stalledMs = 0;

  /** Take a frame with this media timestamp (milliseconds). */
  receive(at, timestamp) {
    if (this.#position === undefined) {
      this.#position = timestamp - BUFFER_MS;
      this.#newest = timestamp;
      this.#at = at;
      return;
    }
    this.#advance(at);
    if (timestamp <= this.#newest) return;
    this.#newest = timestamp;
    this.#emptySince = undefined;
    this.#counted = false;
    if (this.#newest - this.#position > TOO_FULL_MS) this.#position = this.#newest - BUFFER_MS;
  }

  /** Look at the clock. @returns {boolean} whether playout stands still right now */
  tick(at) {
    if (this.#position !== undefined) this.#advance(at);
    return this.#counted;
  }

  /** Begin anew, keeping the count: the broadcast went away or another one began. */
  reset() {
    this.#position = undefined;
    this.#newest = undefined;
    this.#emptySince = undefined;
    this.#counted = false;
  }

  #advance(at) {
    const elapsed = at - this.#at;
    this.#at = at;
    const left = this.#newest - this.#position;
    if (elapsed <= left) {
      this.#position += elapsed;
      return;
    }
    this.#position = this.#newest;
    this.#emptySince ??= at - (elapsed - left);
    const empty = at - this.#emptySince;
    if (empty < STALL_MS) return;
    this.stalledMs += this.#counted ? elapsed : empty;
    if (!this.#counted) this.stalls += 1;
    this.#counted = true;
  }
}
