// Builds the pages into control/pages: the viewer page and the operators' map, a script, a style sheet and a page each,
// and the licences of what is inside.

import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = path.dirname(fileURLToPath(import.meta.url));
const pages = path.join(here, "..", "control", "pages");
const BUILT = ["index.html", "viewer.js", "viewer.css", "map.html", "map.js", "map.css", "place.js", "licenses.txt"];

// @moq/hang loads a software decoder where the browser has none. This page asks for WebCodecs before it starts, so the
// decoder (300 kB, LGPL) stays out.
const withoutPolyfill = {
  name: "without-polyfill",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^(@kixelated\/libavjs-webcodecs-polyfill|@libav\.js\/)/ }, ({ path }) => ({ path, namespace: "absent" }));
    onLoad({ filter: /.*/, namespace: "absent" }, () => ({ contents: "export default undefined;" }));
  },
};

await mkdir(pages, { recursive: true });
await Promise.all(BUILT.map((name) => rm(path.join(pages, name), { force: true })));

const { metafile } = await build({
  entryPoints: { viewer: path.join(here, "src/main.js"), map: path.join(here, "src/map.js") },
  outdir: pages,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  // Each package once: two copies of @moq/signals would not know each other's signals.
  alias: Object.fromEntries(["@moq/net", "@moq/signals"].map((name) => [name, path.join(here, "node_modules", name)])),
  plugins: [withoutPolyfill],
  legalComments: "none",
  metafile: true,
  logLevel: "warning",
});
for (const name of ["viewer.css", "map.css"]) {
  const styles = await build({ entryPoints: [path.join(here, "src", name)], bundle: true, minify: true, write: false });
  await writeFile(path.join(pages, name), styles.outputFiles[0].text);
}
await writeFile(path.join(pages, ".gitignore"), "*\n");
for (const name of ["index.html", "map.html"]) {
  await writeFile(path.join(pages, name), await withIncluded(name));
}
// For other people's players, as it is.
await writeFile(path.join(pages, "place.js"), await readFile(path.join(here, "place.js")));
await writeFile(path.join(pages, "licenses.txt"), await licences(Object.keys(metafile.inputs)));

/** A page, with what all pages have alike in the places where it names that. */
async function withIncluded(name) {
  const page = await readFile(path.join(here, "src", name), "utf8");
  const parts = page.split(/<!-- include (\S+) -->\n/);
  const filled = parts.map((part, index) => (index % 2 ? readFile(path.join(here, "src", part), "utf8") : part));
  return (await Promise.all(filled)).join("");
}

/** Name, version, licence and text for every package of which something was bundled. */
async function licences(inputs) {
  const roots = new Set();
  for (const input of inputs) {
    const match = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path.resolve(input));
    if (match) roots.add(match[1]);
  }
  const sections = [];
  for (const root of [...roots].sort()) {
    const { name, version, license, repository } = JSON.parse(await readFile(path.join(root, "package.json"), "utf8"));
    const source = typeof repository === "string" ? repository : (repository?.url ?? "");
    let text = "";
    for (const file of ["LICENSE", "LICENSE.md", "LICENSE.txt", "LICENSE-MIT", "license", "license.md"]) {
      text ||= await readFile(path.join(root, file), "utf8").catch(() => "");
    }
    sections.push([`${name} ${version} (${license ?? "see its source"}) ${source}`, text.trim()].join("\n\n").trim());
  }
  return `The viewer page contains these packages.\n\n${sections.join(`\n\n${"-".repeat(80)}\n\n`)}\n`;
}
