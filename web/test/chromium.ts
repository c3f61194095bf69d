// Real Chromium for tests: where it is, and the flags that a machine of tests needs.

import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

const places = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** How long the browser may take to start, in ms. */
const START = 120_000;

/** The browser's program: $CHROMIUM, or where Linux distributions put it. */
export function chromiumPath(): string {
  const path = process.env.CHROMIUM ?? places.find(existsSync);
  if (path === undefined)
    throw new Error("Chromium is missing: install it, or name its program in $CHROMIUM");
  return path;
}

/** Flags: no sandbox, as tests may run as root; WebRTC over loopback, where there may be no other interface. */
export const chromiumArgs: readonly string[] = [
  "--no-sandbox",
  "--allow-loopback-in-peer-connection",
  "--disable-features=WebRtcHideLocalIpsWithMdns",
];

/** Starts a browser of its own; whoever calls closes it. */
export function launchChromium(): Promise<Browser> {
  return chromium.launch({ executablePath: chromiumPath(), args: [...chromiumArgs], timeout: START });
}
