// The room stands behind '#' of the page's address: a reload comes back to it, and no server is told.

import { useSyncExternalStore } from "react";
import { tokenOf } from "../signaling/link.ts";

/** The address of this page without the room, ending in "/". */
export function pageBase(): string {
  return new URL(".", location.href).href;
}

/** The join token in this page's address, before '#'. */
export function pageToken(): string | undefined {
  return tokenOf(location.search);
}

/**
 * Goes to the room of a link. One that names another host is opened there: that is where its server is. So is one that
 * brings another join token.
 */
export function enterRoom(link: string): void {
  const cut = link.indexOf("#");
  const base = cut > 0 ? new URL(link.slice(0, cut)) : undefined;
  const token = base && tokenOf(base.search);
  if (base && (base.host !== location.host || (token !== undefined && token !== pageToken()))) {
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
