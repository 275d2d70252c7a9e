// The unmodified <moq-watch> element on a page of its own: ?relay=…&namespace=…[&certificate=HEX]
//
// With an http:// address the element fetches the certificate's hash from the relay itself; the stand-in relay has no such
// page, so its hash comes in the query.

import "@moq/watch/element";

const query = new URLSearchParams(location.search);
const element = document.querySelector("moq-watch");
const certificate = query.get("certificate");
if (certificate) {
  const value = Uint8Array.from(certificate.match(/../g), (byte) => Number.parseInt(byte, 16));
  element.connection.webtransport = { serverCertificateHashes: [{ algorithm: "sha-256", value }] };
}
element.connection.websocket = { enabled: false };
const began = performance.now();
element.name = query.get("namespace");
element.url = query.get("relay");

let firstPictureMs;
const dispose = element.renderer.out.frame.subscribe((frame) => {
  if (!frame || firstPictureMs !== undefined) return;
  firstPictureMs = performance.now() - began;
  dispose();
});

globalThis.player = {
  picture: () => element.querySelector("canvas"),
  // Media time shown, in seconds: what a <video> calls currentTime.
  currentTime: () => (element.video.out.timestamp.peek() ?? 0) / 1000,
  firstPictureMs: () => firstPictureMs ?? null,
  choose: (name) => element.controls.target.set(name ? { name } : undefined),
  rendition: () => element.video.source.out.track.peek() ?? null,
};
