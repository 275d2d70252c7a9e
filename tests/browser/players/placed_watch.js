// The unmodified <moq-watch> element, placed: ?control=URL[&control=URL…]&namespace=…&token=…
//
// What an integrator writes is the call of `place`; the rest is for the test.

import "@moq/watch/element";
import { moqWatch, place } from "../../../web/place.js";

const query = new URLSearchParams(location.search);
const element = document.querySelector("moq-watch");
element.connection.websocket = { enabled: false };

globalThis.moves = [];
globalThis.placement = place({
  control: query.getAll("control"),
  namespace: query.get("namespace"),
  token: query.get("token"),
  player: moqWatch(element),
  onChange: ({ state, reason, relay }) => globalThis.moves.push({ at: Date.now(), state, reason, relay: relay?.id ?? null }),
});

globalThis.player = {
  picture: () => element.querySelector("canvas"),
  currentTime: () => (element.video.out.timestamp.peek() ?? 0) / 1000,
  firstPictureMs: () => null,
};
