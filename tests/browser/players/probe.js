// Says once every animation frame whether the picture is another one, by a coarse copy of its pixels.

(() => {
  const small = document.createElement("canvas");
  small.width = 32;
  small.height = 18;
  const context = small.getContext("2d", { willReadFrequently: true });
  let last;
  let changes = 0;
  let changedAt;
  let longestStillMs = 0;

  function look() {
    const picture = globalThis.player?.picture();
    const width = picture?.videoWidth ?? picture?.width;
    if (width) {
      context.drawImage(picture, 0, 0, small.width, small.height);
      const { data } = context.getImageData(0, 0, small.width, small.height);
      let hash = 17;
      let light = 0;
      for (let i = 0; i < data.length; i += 4) {
        hash = (hash * 31 + data[i] + 7 * data[i + 1] + 13 * data[i + 2]) | 0;
        light += data[i] + data[i + 1] + data[i + 2];
      }
      if (light > 0 && hash !== last) {
        const now = performance.now();
        if (changedAt !== undefined) longestStillMs = Math.max(longestStillMs, now - changedAt);
        changedAt = now;
        changes += 1;
        last = hash;
      }
    }
    requestAnimationFrame(look);
  }
  requestAnimationFrame(look);

  globalThis.probe = () => ({
    at: performance.now(),
    changes,
    sinceChangeMs: changedAt === undefined ? null : performance.now() - changedAt,
    longestStillMs,
    currentTime: globalThis.player?.currentTime() ?? 0,
    firstPictureMs: globalThis.player?.firstPictureMs() ?? null,
    errors: globalThis.player?.errors?.() ?? [],
  });
  globalThis.probeAnew = () => {
    changes = 0;
    changedAt = undefined;
    longestStillMs = 0;
  };
})();
