// The message that says whether the other side needs the link. It is no matter of the core: the page takes it before that
// sees it.

import type { ByteWriter } from "../changeset/writer.ts";
import { parseFlags } from "./codec.ts";
import { TypeNeed } from "./message.ts";
import type { Parser } from "./wire.ts";

const flagNeeded = 1;

/** Whether the sender needs the link for itself; until one comes it counts as needed. A link that neither side needs is closed. */
export interface Need {
  readonly type: typeof TypeNeed;
  readonly needed: boolean;
}

/** Appends all but the type. */
export function appendNeed(w: ByteWriter, m: Need): void {
  w.byte(m.needed ? flagNeeded : 0);
}

/** Reads all but the type. Throws a ProtocolError. */
export function parseNeed(p: Parser): Need {
  return { type: TypeNeed, needed: parseFlags(p, flagNeeded) !== 0 };
}
