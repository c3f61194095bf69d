// One open channel as the core knows it: a link. Messages wait until it has been made known to the core.

import type { SiteID } from "../changeset/change.ts";
import type { PeerID } from "../signaling/id.ts";
import type { Keys } from "../signaling/link.ts";
import { signRole, verifyRole } from "../signaling/proof.ts";
import { marshal, parse } from "../syncproto/codec.ts";
import {
  asProtocolError,
  CodeBadProof,
  CodeInternal,
  malformed,
  type ProtocolError,
} from "../syncproto/errors.ts";
import { MaxSentence, TypeHello, TypeNeed, TypeRelay } from "../syncproto/message.ts";
import type { LinkID } from "../syncproto/ops.ts";
import type { Conn } from "./conn.ts";
import { RelayLimit, type Relays } from "./relay.ts";

/** The core, as the mesh sees it. Calls arrive in order; none blocks. */
export interface MeshCore {
  /** The channel of a link is open, to which this side came as site `own`. `proof` is its role proof for it. */
  open(link: LinkID, own: SiteID, remote: SiteID, proof: Uint8Array): void;
  /** A message came in; the core owns its bytes. The proof in a hello has been verified. */
  message(link: LinkID, bytes: Uint8Array<ArrayBuffer>): void;
  /** What came in was against the protocol: the core tells the other side and asks for the end of the link. */
  refuse(link: LinkID, code: number, sentence: string): void;
  /** The link is gone. */
  closed(link: LinkID): void;
}

/** What a link is made of. */
export interface LinkOptions {
  readonly id: LinkID;
  readonly peer: PeerID;
  readonly conn: Conn;
  readonly keys: Keys;
  readonly core: MeshCore;
  readonly relays: Relays;
  /** Both sides have said hello. Once, never from within a call. */
  live(): void;
}

/** Carries messages between a channel and the core, and takes those out that are for the mesh. */
export class Link {
  readonly #o: LinkOptions;
  readonly #limit = new RelayLimit();
  #greeted = false; // our hello was sent
  #welcomed = false; // theirs has come, and proves what it claims
  #closed = false;
  #tasks: Promise<void> | undefined; // one step after the other; undefined once there is nothing left to wait for
  /** The other side has proved to be a writer. */
  writer = false;
  /** It is closed on purpose, by one side or the other. */
  farewell = false;
  /** The other side has said that it does not need it. */
  spareThere = false;
  #spareHere = false; // we have

  /** Makes the link known to the core. */
  constructor(options: LinkOptions) {
    this.#o = options;
    const { id, conn, keys, core } = options;
    this.#run(async () => {
      const { remote } = conn;
      if (!remote) throw new Error("the channel opened without a description of the other side");
      const proof = await signRole(keys, conn.ownEnd(), remote);
      if (!this.#closed) core.open(id, conn.ownSite, remote.site, proof);
    });
  }

  get id(): LinkID {
    return this.#o.id;
  }

  get peer(): PeerID {
    return this.#o.peer;
  }

  get conn(): Conn {
    return this.#o.conn;
  }

  /** Both sides have said hello. */
  get live(): boolean {
    return this.#greeted && this.#welcomed && !this.#closed;
  }

  /** Sends a message of the core's. The first one is the hello. */
  send(bytes: Uint8Array): void {
    this.conn.channel.send(bytes);
    if (this.#greeted) return;
    this.#greeted = true;
    if (this.live) queueMicrotask(() => this.#o.live());
  }

  /** Tells the other side whether this one needs the link, unless it knows. */
  need(needed: boolean): void {
    if (!this.live || this.#spareHere !== needed) return;
    this.#spareHere = !needed;
    this.conn.channel.send(marshal({ type: TypeNeed, needed }));
  }

  /** Takes a message of the other side. */
  message(bytes: Uint8Array<ArrayBuffer>): void {
    const type = bytes[0];
    if (type === TypeRelay && !this.#limit.takes(bytes.length, performance.now())) {
      this.#o.relays.drop();
    } else if (this.#tasks || type === TypeHello) {
      this.#run(async () => {
        if (type !== TypeHello || (await this.#hello(bytes))) this.#take(bytes);
      });
    } else {
      this.#take(bytes);
    }
  }

  /** The other side broke the protocol. */
  fault(error: ProtocolError): void {
    this.#run(async () => this.#o.core.refuse(this.id, error.code, error.sentence));
  }

  /** The channel is gone. */
  closed(): void {
    this.#closed = true;
    this.#run(async () => this.#o.core.closed(this.id));
  }

  #take(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#closed) return;
    if (bytes[0] === TypeRelay || bytes[0] === TypeNeed) this.#ours(bytes);
    else this.#o.core.message(this.id, bytes);
  }

  // Takes a message that is for the mesh.
  #ours(bytes: Uint8Array<ArrayBuffer>): void {
    try {
      if (!this.#welcomed) throw malformed("the first message is not a hello");
      const m = parse(bytes);
      if (m.type === TypeRelay) this.#o.relays.take(this.id, m, this.#limit, performance.now());
      else if (m.type === TypeNeed) this.spareThere = !m.needed;
    } catch (error) {
      const { code, sentence } = asProtocolError(error, MaxSentence);
      this.#o.core.refuse(this.id, code, sentence);
    }
  }

  // Whether a hello may go to the core.
  async #hello(bytes: Uint8Array<ArrayBuffer>): Promise<boolean> {
    if (this.#closed) return false;
    if (!(await this.#proven(bytes))) {
      this.#o.core.refuse(this.id, CodeBadProof, "the proof of the writer role does not verify");
      return false;
    }
    if (!this.#welcomed) {
      this.#welcomed = true;
      if (this.live) queueMicrotask(() => this.#o.live());
    }
    return true;
  }

  // Whether a hello claims no role that it does not prove. What does not parse claims none; the core refuses it.
  async #proven(bytes: Uint8Array<ArrayBuffer>): Promise<boolean> {
    let proof: Uint8Array;
    try {
      const hello = parse(bytes);
      if (hello.type !== TypeHello || !hello.writer) return true;
      proof = hello.proof;
    } catch {
      return true;
    }
    const { remote } = this.conn;
    const { writerPublic } = this.#o.keys;
    if (!remote) return false;
    this.writer = await verifyRole(writerPublic, remote, this.conn.ownEnd(), new Uint8Array(proof));
    return this.writer;
  }

  #run(step: () => Promise<void>): void {
    const tasks = (this.#tasks ?? Promise.resolve()).then(step).catch((error: unknown) => {
      const sentence = error instanceof Error ? error.message : String(error);
      this.#o.core.refuse(this.id, CodeInternal, sentence);
    });
    this.#tasks = tasks;
    void tasks.then(() => {
      if (this.#tasks === tasks) this.#tasks = undefined;
    });
  }
}
