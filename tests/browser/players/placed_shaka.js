// Shaka Player's experimental build, unmodified, placed: ?control=URL[&control=URL…]&namespace=…&token=…

import { place, shakaPlayer } from "/place.js";

const query = new URLSearchParams(location.search);
const video = document.querySelector("video");
const errors = [];

shaka.polyfill.installAll();
const player = new shaka.Player();
await player.attach(video);
player.addEventListener("error", (event) => errors.push(String(event.detail?.code)));

globalThis.moves = [];
globalThis.placement = place({
  control: query.getAll("control"),
  namespace: query.get("namespace"),
  token: query.get("token"),
  player: shakaPlayer(player, video),
  onChange: ({ state, reason, relay }) => globalThis.moves.push({ at: Date.now(), state, reason, relay: relay?.id ?? null }),
});

globalThis.player = {
  picture: () => video,
  currentTime: () => video.currentTime,
  firstPictureMs: () => null,
  errors: () => errors,
};
