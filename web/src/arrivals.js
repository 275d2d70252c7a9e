// How late media comes, seen from its timestamps: what the rendition choice and the stall count are made of.

const BASELINE_WINDOW_MS = 20_000;
const BUCKETS = 10;

/**
 * Follows one track's frames: when each was due, counted from the quickest of the last 20 seconds, and how much came.
 *
 * Times are milliseconds; `at` is any clock that does not jump, `timestamp` the media's own.
 */
export class Arrivals {
  #buckets = []; // [{ since, delay }]: the smallest delay of each two seconds
  #recent = []; // [{ at, bytes, excess }] of the last second
  #last;

  /** Take one frame. @returns {number} by how much it came later than the quickest one */
  receive(at, timestamp, bytes) {
    const delay = at - timestamp;
    this.#remember(at, delay);
    const excess = delay - this.baseline;
    this.#recent.push({ at, bytes, excess });
    this.#last = at;
    this.#forget(at);
    return excess;
  }

  /** The smallest delay between timestamp and arrival of the last 20 seconds. */
  get baseline() {
    return this.#buckets.reduce((least, bucket) => Math.min(least, bucket.delay), Number.POSITIVE_INFINITY);
  }

  /** When the last frame came; undefined before the first. */
  get lastAt() {
    return this.#last;
  }

  /** The median lateness of the last second's frames; 0 where there were none. */
  excess(at) {
    this.#forget(at);
    if (this.#recent.length === 0) return 0;
    const sorted = this.#recent.map((frame) => frame.excess).sort((a, b) => a - b);
    return sorted[sorted.length >> 1];
  }

  /** What came in the last second, in kilobits per second. */
  bitrate(at) {
    this.#forget(at);
    return (this.#recent.reduce((sum, frame) => sum + frame.bytes, 0) * 8) / 1000;
  }

  /** Begin anew: another rendition, another timeline. The baseline stays when only the rendition changed. */
  reset({ keepBaseline = false } = {}) {
    this.#recent = [];
    this.#last = undefined;
    if (!keepBaseline) this.#buckets = [];
  }

  #remember(at, delay) {
    const newest = this.#buckets.at(-1);
    if (newest === undefined || at - newest.since >= BASELINE_WINDOW_MS / BUCKETS) {
      this.#buckets.push({ since: at, delay });
    } else {
      newest.delay = Math.min(newest.delay, delay);
    }
    while (at - this.#buckets[0].since > BASELINE_WINDOW_MS) this.#buckets.shift();
  }

  #forget(at) {
    while (this.#recent.length > 0 && at - this.#recent[0].at > 1000) this.#recent.shift();
  }
}
