// Shaka Player's experimental build, unmodified, on a page of its own: ?relay=…&namespace=…&fingerprint=URL

const query = new URLSearchParams(location.search);
const video = document.querySelector("video");
const errors = [];
let firstPictureMs;
let began;

shaka.polyfill.installAll();
const player = new shaka.Player();

globalThis.player = {
  picture: () => video,
  currentTime: () => video.currentTime,
  firstPictureMs: () => firstPictureMs ?? null,
  errors: () => errors,
};

void (async () => {
  await player.attach(video);
  player.addEventListener("error", (event) => errors.push(String(event.detail?.code)));
  player.configure({
    manifest: { msf: { namespaces: query.get("namespace").split("/"), fingerprintUri: query.get("fingerprint") } },
  });
  began = performance.now();
  video.requestVideoFrameCallback(() => (firstPictureMs = performance.now() - began));
  try {
    await player.load(query.get("relay"), null, "application/msf");
    await video.play();
  } catch (error) {
    errors.push(`${error.code ?? error} ${(error.data ?? []).map(String).join(" ")}`);
  }
})();
