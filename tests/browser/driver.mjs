// Drives Debian's Chromium for pytest: a JSON order a line on standard input, a JSON answer a line on standard output.
//
// {"open": URL, "width": 1280, "height": 800, "scheme": "dark"} -> {"page": N}     {"evaluate": "expression", "page": N} -> {"value": …}
// {"screenshot": FILE, "page": N} -> {}                          {"console": true, "page": N} -> {"value": [lines]}
// {"click"|"fill": SELECTOR, "text": …, "page": N} -> {}         {"close": true, "page": N} -> {}

import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    ...["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
    ...["--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required"],
  ],
});
const pages = new Map();

async function obey(order) {
  if (order.open) {
    const context = await browser.newContext({
      viewport: { width: order.width ?? 1280, height: order.height ?? 800 },
      deviceScaleFactor: order.scale ?? 1,
      colorScheme: order.scheme ?? "light",
    });
    const page = await context.newPage();
    const lines = [];
    const opened = performance.now();
    const note = (kind, text) => lines.push(`${((performance.now() - opened) / 1000).toFixed(3)} ${kind}: ${text}`);
    page.on("console", (message) => note(message.type(), message.text()));
    page.on("pageerror", (error) => note("pageerror", error));
    if (order.init) await page.addInitScript(order.init);
    await page.goto(order.open);
    const number = pages.size + 1;
    pages.set(number, { page, context, lines });
    return { page: number };
  }
  const { page, context, lines } = pages.get(order.page);
  if (order.evaluate) return { value: await page.evaluate(order.evaluate) };
  if (order.screenshot) return page.screenshot({ path: order.screenshot }).then(() => ({}));
  if (order.console) return { value: lines };
  if (order.click) return page.click(order.click).then(() => ({}));
  if (order.fill) return page.fill(order.fill, order.text).then(() => ({}));
  if (order.press) return page.press(order.press, order.key).then(() => ({}));
  if (order.close) return context.close().then(() => ({}));
  throw new Error(`unknown order ${JSON.stringify(order)}`);
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await obey(JSON.parse(line)).catch((error) => ({ error: String(error) }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
