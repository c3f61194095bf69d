// Addresses of signaling servers.

import { Path } from "./limits.ts";

const schemes: Readonly<Record<string, string>> = {
  "http:": "ws:",
  "https:": "wss:",
  "ws:": "ws:",
  "wss:": "wss:",
};

/**
 * The address of the WebSocket of the server at `base`, which is the address of its page (http, https) or the WebSocket's
 * own (ws, wss, with or without the path v1/signal). What follows '?' or '#' is cut. Throws an Error whose message is
 * a sentence for a person; it holds no secret of a room link.
 */
export function webSocketURL(base: string): string {
  const shown = JSON.stringify(base.split("#", 1)[0]);
  let url: URL;
  try {
    url = new URL(base.trim());
  } catch {
    throw new Error(`the signaling address ${shown} is not like https://host or wss://host`);
  }
  const scheme = schemes[url.protocol];
  if (scheme === undefined) {
    throw new Error(`the signaling address ${shown} must start with https://, http://, wss:// or ws://`);
  }
  const { pathname } = url;
  const path = pathname.endsWith(`/${Path}`)
    ? pathname
    : `${pathname.slice(0, pathname.lastIndexOf("/") + 1)}${Path}`;
  return `${scheme}//${url.host}${path}`;
}
