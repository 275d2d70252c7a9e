// Which rendition to watch: down at once when the link falls behind, up again when it has room.
//
// A live stream arrives at the rate at which it is made, so throughput alone never shows room to spare. What does is how
// long a key frame takes: it is many times larger than its neighbours, so its lateness is its size over the link's rate.
// Everything else that happens to it on the way makes it later still, so the quickest of several is nearest to the truth.

const BEHIND_MS = 150; // this late, for this many frames in a row, and the link is too narrow
const BEHIND_FRAMES = 3;
const FAR_BEHIND_MS = 350; // one frame this late is enough
const SILENT_MS = 400; // nothing came for so long
const SETTLE_MS = 1500; // after a switch the new rendition gets this long to catch up
const STEADY_MS = 60; // this close to the quickest frame counts as keeping up
const CLIMB_AFTER_MS = 3000; // keeping up for so long makes a step up worth a try
const CLIMB_AFTER_MOST_MS = 7000; // however often that went wrong
const FAILED_WITHIN_MS = 4000; // a step down so soon after a step up: the step up was wrong
const ROOM_FACTOR = 1.3; // a key frame has to show this much more than the higher rendition needs
const TRY_AFTER_MS = 8000; // where they show just enough: keep up for so long, and try
const WIDER_FACTOR = 1.5; // and after a step up that went wrong, this much more than it showed then
const REMEMBER_MS = 60_000; // for so long
const LARGE_BYTES = 3000; // smaller frames say nothing about the link's rate
const LARGE_FRAMES = 8;

/**
 * Decides; it neither measures nor switches.
 *
 * @param {{name: string, bitrateKbps: number}[]} ladder - lowest first
 */
export class Choice {
  #ladder;
  #index;
  #switchedAt; // also when the first frame came
  #climbedAt = Number.NEGATIVE_INFINITY;
  #steadySince;
  #behind = 0;
  #climbAfter = CLIMB_AFTER_MS;
  #rates = []; // kbit/s that recent large frames showed
  #climbedWith; // what they showed when it last stepped up
  #failed; // { at, rate } of the last step up that went wrong

  constructor(ladder, current) {
    this.update(ladder, current);
  }

  /** Take a changed ladder, without forgetting what was learnt: publishers correct their bitrates every few seconds. */
  update(ladder, current) {
    this.#ladder = ladder;
    const index = ladder.findIndex((rendition) => rendition.name === current);
    this.#index = index < 0 ? ladder.length - 1 : index;
  }

  /** The rendition to watch. */
  get name() {
    return this.#ladder[this.#index]?.name;
  }

  /** Take one frame: when it came, how much later than the quickest, how large. @returns the name to switch to, if any */
  receive(at, excessMs, bytes) {
    this.#measureRate(excessMs, bytes);
    this.#switchedAt ??= at;
    if (at - this.#switchedAt < SETTLE_MS) return undefined;
    this.#behind = excessMs > BEHIND_MS ? this.#behind + 1 : 0;
    if (excessMs > FAR_BEHIND_MS || this.#behind >= BEHIND_FRAMES) return this.#descend(at);
    if (excessMs > STEADY_MS && bytes < LARGE_BYTES) this.#steadySince = at;
    this.#steadySince ??= at;
    if (at - this.#steadySince >= this.#climbAfter) return this.#climb(at);
    return undefined;
  }

  /** Look at the clock between frames: silence is lateness too. @returns the name to switch to, if any */
  tick(at, lastFrameAt) {
    if (lastFrameAt === undefined || this.#switchedAt === undefined || at - this.#switchedAt < SETTLE_MS) return undefined;
    return at - lastFrameAt > SILENT_MS ? this.#descend(at) : undefined;
  }

  #measureRate(excessMs, bytes) {
    if (bytes < LARGE_BYTES) return;
    this.#rates.push((bytes * 8) / Math.max(excessMs, 2));
    if (this.#rates.length > LARGE_FRAMES) this.#rates.shift();
  }

  #descend(at) {
    this.#steadySince = undefined;
    this.#behind = 0;
    if (this.#index === 0) return undefined;
    if (at - this.#climbedAt < FAILED_WITHIN_MS) {
      this.#climbAfter = Math.min(this.#climbAfter * 2, CLIMB_AFTER_MOST_MS);
      this.#failed = { at, rate: this.#climbedWith ?? 0 };
    }
    return this.#go(at, this.#index - 1);
  }

  #climb(at) {
    if (this.#index === this.#ladder.length - 1) return undefined;
    if (!this.#hasRoom(at, this.#ladder[this.#index + 1].bitrateKbps)) return undefined;
    if (at - this.#climbedAt > 4 * CLIMB_AFTER_MOST_MS) this.#climbAfter = CLIMB_AFTER_MS;
    this.#climbedAt = at;
    this.#climbedWith = quickest(this.#rates);
    return this.#go(at, this.#index + 1);
  }

  #hasRoom(at, neededKbps) {
    const shown = quickest(this.#rates);
    if (shown === undefined) return true; // no large frame to judge by: only trying tells
    if (this.#failed && at - this.#failed.at > REMEMBER_MS) this.#failed = undefined;
    if (this.#failed && shown < WIDER_FACTOR * this.#failed.rate) return false;
    if (shown >= ROOM_FACTOR * neededKbps) return true;
    return shown >= neededKbps && !this.#failed && at - this.#steadySince >= TRY_AFTER_MS;
  }

  #go(at, index) {
    this.#index = index;
    this.#switchedAt = at;
    this.#steadySince = undefined;
    this.#rates = [];
    return this.name;
  }
}

function quickest(rates) {
  return rates.length === 0 ? undefined : Math.max(...rates);
}
