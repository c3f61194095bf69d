// What can go wrong, in words for a person: what happened, and what to do.

export interface Failure {
  readonly title: string;
  readonly advice: string;
}

/** Why the page cannot open a room here at all. */
export function environmentFailure(): Failure | undefined {
  if (!globalThis.isSecureContext) {
    return {
      title: "This address is not secure enough for the browser",
      advice:
        "Browsers keep cryptography and storage from pages that come over plain http from another machine. Open the page over https, or on the machine itself as http://localhost.",
    };
  }
  if (typeof RTCPeerConnection === "undefined") {
    return {
      title: "This browser has no WebRTC",
      advice:
        "Peers talk to each other through WebRTC data channels. Allow WebRTC in the browser's settings, or use another browser.",
    };
  }
  if (navigator.storage === undefined || typeof indexedDB === "undefined") {
    return {
      title: "This browser gives the page no storage",
      advice:
        "The database lives in the browser's own storage. Leave private browsing, or allow site data for this page.",
    };
  }
  return undefined;
}

/** An error of opening or running a room. Known causes get advice; the sentence of any other stands for itself. */
export function describe(error: unknown): Failure {
  const text = error instanceof Error ? error.message : String(error);
  if (/no room left|quota/i.test(text)) {
    return {
      title: "The browser's storage is full",
      advice:
        "Free some space: delete data of other sites in the browser's settings, or files on the disk. Then reload; nothing that was saved is lost.",
    };
  }
  if (/storage|OPFS|NoModificationAllowed|getDirectory|SecurityError/i.test(text)) {
    return {
      title: "The browser's storage cannot be used",
      advice: `Leave private browsing, allow site data for this page, close other tabs of this room, and reload. (${text})`,
    };
  }
  return { title: "The room could not be opened", advice: sentence(text) };
}

/** Library errors begin in lower case and have no full stop. */
export function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.?!]$/.test(text) ? "" : "."}`;
}
