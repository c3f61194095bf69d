// The sync protocol of one peer, for all its links, without any I/O. The driver's duties are those of Go's package comment
// (pkg/mesh/syncproto/doc.go): one owner calls it; after each call, or after a few, it calls ready() and does what that
// says.

import { SiteIDLen } from "../changeset/change.ts";
import { CodeInternal, CodeSuperseded, malformed, ProtocolError } from "./errors.ts";
import { updateFeed } from "./feed.ts";
import { announce, stepHave } from "./have.ts";
import { applied, busy, startApply, stepChanges } from "./inbox.ts";
import { newLink, pass, sendHello, stepHello, updateNeighbours } from "./link.ts";
import {
  MaxMessage,
  MaxVectorSites,
  type Message,
  MinMaxMessage,
  type TableSchema,
  TypeBye,
  TypeChanges,
  TypeDigestAnswer,
  TypeDigestRequest,
  TypeErrorMessage,
  TypeHave,
  TypeHello,
  TypePrune,
  TypeResend,
  TypeSchema,
} from "./message.ts";
import {
  type ApplyResult,
  type Config,
  type LinkID,
  type LookResult,
  MaxLinks,
  type OpenInfo,
  type ReadResult,
  type Ready,
  TickMillis,
} from "./ops.ts";
import { sendPrune, stepPrune } from "./prune.ts";
import { announceSchema, schemaApplied, schemaChanged, stepSchema } from "./schema.ts";
import { CoreState } from "./state.ts";
import { EventRemoteError, type Status, statusOf, synced } from "./status.ts";
import { emptyVector, type Vector } from "./vector.ts";
import { lookDone, startLook, stepDigestAnswer, stepDigestRequest, stepResend } from "./verify.ts";
import { readDone, serve } from "./walk.ts";

/** The sync protocol of one peer. Same Config, same calls: same results. */
export class Core {
  readonly #c: CoreState;

  /** A core without links. Throws an Error about `cfg`. */
  constructor(cfg: Config) {
    if (!/^[0-9a-f]*$/.test(cfg.site) || cfg.site.length !== 2 * SiteIDLen) {
      throw new Error(`a site id has ${SiteIDLen} bytes, not ${cfg.site.length / 2}`);
    }
    if (cfg.vector.size >= MaxVectorSites) {
      throw new Error(`the vector has ${cfg.vector.size} sites, at most ${MaxVectorSites - 1} are supported`);
    }
    const maxMessage = cfg.maxMessage === 0 ? MaxMessage : cfg.maxMessage;
    if (maxMessage < MinMaxMessage || maxMessage > MaxMessage) {
      throw new Error(`the largest message has ${MinMaxMessage} to ${MaxMessage} bytes, not ${maxMessage}`);
    }
    this.#c = new CoreState({ ...cfg, maxMessage });
  }

  /** A link's channel is open. A hello is sent. */
  open(id: LinkID, o: OpenInfo): void {
    const c = this.#c;
    this.close(id);
    for (const other of c.order) {
      const l = c.link(other);
      if (l.remote === o.remote) {
        c.fail(l, new ProtocolError(CodeSuperseded, "a newer connection of the same peer replaces this one"));
      }
    }
    const l = newLink(c.cfg.site, id, o);
    l.heard = c.now;
    c.links.set(id, l);
    c.order.push(id);
    c.order.sort((a, b) => a - b);
    if (c.order.length > MaxLinks) {
      c.fail(l, new ProtocolError(CodeInternal, `this peer has ${MaxLinks} links and takes no more`));
      return;
    }
    updateFeed(c);
    sendHello(c, l);
  }

  /** A link is gone, for whatever reason, also after the core asked for it. What it had queued is dropped. */
  close(id: LinkID): void {
    const c = this.#c;
    const l = c.links.get(id);
    if (!l) return;
    pass(c, l);
    c.links.delete(id);
    c.order.splice(c.order.indexOf(id), 1);
    updateNeighbours(c);
  }

  /**
   * Sends `error` on the link and closes it: for what the driver found, such as bytes that do not parse or a proof that
   * does not verify.
   */
  refuse(id: LinkID, error: ProtocolError): void {
    const l = this.#c.open(id);
    if (l) this.#c.fail(l, error);
  }

  /**
   * A message came in on the link. The core owns it from now on. The driver has verified a hello's proof, and calls
   * `refuse` in place of `step` if it is bad.
   */
  step(id: LinkID, m: Message): void {
    const c = this.#c;
    const l = c.open(id);
    if (!l) return;
    switch (m.type) {
      case TypeErrorMessage: {
        const error = new ProtocolError(m.code, m.sentence);
        c.event(l, { kind: EventRemoteError, error });
        c.shut(l, error);
        return;
      }
      case TypeBye:
        c.shut(l, undefined);
        return;
      case TypeHello:
        stepHello(c, l, m);
        return;
    }
    if (!l.live) {
      c.fail(l, malformed("the first message is not a hello"));
      return;
    }
    switch (m.type) {
      case TypeChanges:
        stepChanges(c, l, m);
        break;
      case TypeHave:
        stepHave(c, l, m);
        break;
      case TypeSchema:
        stepSchema(c, l, m);
        break;
      case TypePrune:
        stepPrune(c, l, m);
        break;
      case TypeDigestRequest:
        stepDigestRequest(c, l, m);
        break;
      case TypeDigestAnswer:
        stepDigestAnswer(c, l, m);
        break;
      case TypeResend:
        stepResend(c, l, m);
    }
  }

  /** To be called every TickMillis. */
  tick(): void {
    const { looks } = this.#c;
    this.#c.now++;
    looks.cost = Math.max(looks.cost - TickMillis / 2, 0);
  }

  /** A durable local commit: the store's own and newest after it. */
  committed(own: number, newest: number): void {
    this.#c.advance(own, newest, emptyVector);
  }

  /** Answers a ReadRequest. */
  readDone(r: ReadResult): void {
    readDone(this.#c, r);
  }

  /** Answers the ApplyRequest. */
  applied(r: ApplyResult): void {
    applied(this.#c, r);
  }

  /**
   * The schema's hash, generation and tables: after the construction, and whenever one of them changed, before the
   * `committed` that came with the change.
   */
  schemaChanged(hash: Uint8Array, generation: number, tables: readonly TableSchema[]): void {
    schemaChanged(this.#c, hash, generation, tables);
  }

  /** Answers a SchemaRequest. */
  schemaApplied(id: LinkID): void {
    schemaApplied(this.#c, id);
  }

  /** Answers a LookRequest. */
  lookDone(r: LookResult): void {
    lookDone(this.#c, r);
  }

  /** What is to be done; it is taken as being done. */
  ready(): Ready {
    const c = this.#c;
    startApply(c);
    startLook(c);
    updateFeed(c);
    for (const id of c.order) {
      const l = c.link(id);
      if (l.live && !l.closing) {
        announceSchema(c, l);
        sendPrune(c, l);
        serve(c, l);
      }
    }
    const isBusy = busy(c);
    for (const id of c.order) {
      const l = c.link(id);
      if (l.live && !l.closing) announce(c, l, isBusy);
    }
    return c.take();
  }

  /** What this peer covers, its own entry included. */
  vector(): Vector {
    return this.#c.vector;
  }

  /** A picture of the core. */
  status(): Status {
    return statusOf(this.#c);
  }

  /**
   * Whether all links are live, we cover all that the other sides cover, as far as they can send it to us, and they cover
   * all that we do, as far as we can send it to them.
   */
  synced(): boolean {
    return synced(this.#c);
  }
}
