import { open } from "../client/client.ts";
import { pageToken } from "./location.ts";
import type { Opener } from "./room.tsx";

/**
 * Opens a room under the name that the others see: the browser's and the system's. The join token, if there is one, stands
 * in the page's address.
 */
export const openRoom: Opener = (link) => {
  const joinToken = pageToken();
  return open({
    room: link,
    name: deviceName(navigator.userAgent),
    ...(joinToken !== undefined && { joinToken }),
  });
};

const browsers: readonly [RegExp, string][] = [
  [/Firefox\//, "Firefox"],
  [/Edg\//, "Edge"],
  [/OPR\//, "Opera"],
  [/Chrome\//, "Chrome"],
  [/Safari\//, "Safari"],
];

const systems: readonly [RegExp, string][] = [
  [/Android/, "Android"],
  [/iPhone|iPad/, "iOS"],
  [/Windows/, "Windows"],
  [/Mac OS X/, "macOS"],
  [/CrOS/, "ChromeOS"],
  [/Linux/, "Linux"],
];

/** Such as "Firefox on Linux". The order of the lists matters: browsers name others beside themselves. */
export function deviceName(userAgent: string): string {
  const find = (list: readonly [RegExp, string][]) => list.find(([mark]) => mark.test(userAgent))?.[1];
  return `${find(browsers) ?? "Browser"} on ${find(systems) ?? "some device"}`;
}
