// The room stands behind '#' of the page's address: a reload comes back to it, and no server is told.

import { useSyncExternalStore } from "react";

/** The address of this page without the room, ending in "/". */
export function pageBase(): string {
  return new URL(".", location.href).href;
}

/** Goes to the room of a link. One that names another host is opened there: that is where its server is. */
export function enterRoom(link: string): void {
  const cut = link.indexOf("#");
  const base = cut > 0 ? link.slice(0, cut) : "";
  if (base !== "" && new URL(base).host !== location.host) {
    location.assign(link);
  } else {
    location.hash = link.slice(cut + 1);
  }
}

/** The room part of the address, without '#'; "" where there is none. */
export function useRoomFragment(): string {
  return useSyncExternalStore(
    (listener) => {
      addEventListener("hashchange", listener);
      return () => removeEventListener("hashchange", listener);
    },
    () => location.hash.slice(1),
  );
}
