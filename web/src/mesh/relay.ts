// Envelopes of docs/SIGNALING.md that members pass on for each other, where the signaling server is away.

import { sha256 } from "@noble/hashes/sha2.js";
import { toHex } from "../changeset/change.ts";
import { decode64, encode64 } from "../signaling/base64.ts";
import { idBytes, type PeerID } from "../signaling/id.ts";
import { marshal } from "../syncproto/codec.ts";
import { TypeRelay } from "../syncproto/message.ts";
import type { LinkID } from "../syncproto/ops.ts";
import { MaxRelayHops, type Relay } from "../syncproto/relay.ts";

/** How many neighbours get an envelope whose receiver is no neighbour. */
const fanout = 3;
/** The token bucket of what comes in on one link, in bytes a second and bytes. What is above it is dropped. */
const rate = 64 * 1024;
const burst = 512 * 1024;
/**
 * How much less of what comes in on one link is passed on: a member that floods us must not use up what our neighbours take
 * from us.
 */
const share = 4;
/** What an envelope takes from the bucket at least, in bytes. */
const leastCost = 1024;
/** How many envelopes are remembered at least, and half of how many at most, so that none is passed on twice. */
const maxSeen = 4096;
/** How many messages may wait at a link that is to get an envelope; where more do, it gets none. */
const maxAhead = 256;

/** Counts of envelopes since the mesh started. */
export interface RelayFigures {
  /** Ours, handed to neighbours. */
  readonly sent: number;
  /** For us. */
  readonly received: number;
  /** Of others for others. */
  readonly passed: number;
  /** Above the rate of a link, not for anybody we know, or damaged. */
  readonly dropped: number;
}

/** A live link, as far as relaying goes. */
export interface Neighbour {
  readonly link: LinkID;
  readonly peer: PeerID;
  /** Something was heard of it lately. */
  readonly healthy: boolean;
  /** Messages that wait to be sent on it. */
  readonly waiting: number;
  send(bytes: Uint8Array): void;
}

/** What relaying is made of. */
export interface RelayOptions {
  readonly own: PeerID;
  /** The links that are live now. */
  neighbours(): Iterable<Neighbour>;
  /** An envelope for us, as from the server; it came over the link `via`. False: `from` is no member. */
  receive(from: PeerID, sealed: string, via: LinkID): boolean;
  readonly random?: () => number;
}

/** Bounds the envelopes that come in on one link. */
export class RelayLimit {
  readonly #in = new Bucket(rate, burst);
  readonly #passed = new Bucket(rate / share, burst / share);

  /** Whether an envelope of so many bytes is to be looked at. `now`: ms, rises. */
  takes(bytes: number, now: number): boolean {
    return this.#in.take(Math.max(bytes, leastCost), now);
  }

  /** Whether it is to be passed on. */
  passes(bytes: number, now: number): boolean {
    return this.#passed.take(Math.max(bytes, leastCost), now);
  }
}

class Bucket {
  readonly #rate: number;
  readonly #burst: number;
  #tokens: number;
  #last = 0;

  constructor(perSecond: number, most: number) {
    this.#rate = perSecond;
    this.#burst = most;
    this.#tokens = most;
  }

  take(n: number, now: number): boolean {
    this.#tokens = Math.min(this.#burst, this.#tokens + ((now - this.#last) / 1000) * this.#rate);
    this.#last = now;
    if (n > this.#tokens) return false;
    this.#tokens -= n;
    return true;
  }
}

/** Passes envelopes on, and remembers those that it has seen. */
export class Relays {
  readonly #o: RelayOptions;
  readonly #via = new Map<PeerID, LinkID>(); // over which link a member's last envelope came
  #seen = new Set<string>();
  #older = new Set<string>(); // forgotten when #seen is full
  #sent = 0;
  #received = 0;
  #passed = 0;
  #dropped = 0;

  constructor(options: RelayOptions) {
    this.#o = options;
  }

  get figures(): RelayFigures {
    return {
      sent: this.#sent,
      received: this.#received,
      passed: this.#passed,
      dropped: this.#dropped,
    };
  }

  /** Whether there is a neighbour other than the peer itself that could pass an envelope on to it. */
  reaches(to: PeerID): boolean {
    for (const n of this.#o.neighbours()) if (n.peer !== to && n.healthy) return true;
    return false;
  }

  /** Hands an envelope of ours to neighbours. False: there is none. */
  send(to: PeerID, sealed: string): boolean {
    const bytes = decode64(sealed);
    if (!bytes) throw new TypeError("an envelope is not base64url");
    const m: Relay = {
      type: TypeRelay,
      hops: MaxRelayHops,
      from: idBytes(this.#o.own),
      to: idBytes(to),
      sealed: bytes,
    };
    this.#first(m);
    if (this.#spread(m, to, undefined) === 0) return false;
    this.#sent++;
    return true;
  }

  /** An envelope came in on a link, within what `limit` takes. */
  take(link: LinkID, m: Relay, limit: RelayLimit, now: number): void {
    const from = encode64(m.from);
    const to = encode64(m.to);
    if (from === this.#o.own || !this.#first(m)) return; // it has been here
    if (to === this.#o.own) {
      if (this.#o.receive(from, encode64(m.sealed), link)) {
        this.#received++;
        this.#via.set(from, link); // the way back
      } else {
        this.#dropped++;
      }
    } else if (limit.passes(m.sealed.length, now) && this.#spread(m, to, link) > 0) {
      this.#passed++;
    } else {
      this.#dropped++;
    }
  }

  /** Counts an envelope that was not looked at, or did not open. */
  drop(): void {
    this.#dropped++;
  }

  /** Forgets a member. */
  forget(peer: PeerID): void {
    this.#via.delete(peer);
  }

  // Whether the envelope comes for the first time.
  #first(m: Relay): boolean {
    const hash = sha256.create().update(m.from).update(m.to).update(m.sealed).digest();
    const key = toHex(hash.subarray(0, 16));
    if (this.#seen.has(key) || this.#older.has(key)) return false;
    if (this.#seen.size >= maxSeen) {
      this.#older = this.#seen;
      this.#seen = new Set();
    }
    this.#seen.add(key);
    return true;
  }

  // Hands an envelope, which came over the link `from` (undefined: it is ours), to the link of its receiver, or to some
  // neighbours where there is none. Returns to how many.
  #spread(m: Relay, to: PeerID, from: LinkID | undefined): number {
    const origin = encode64(m.from);
    const others: Neighbour[] = [];
    for (const n of this.#o.neighbours()) {
      if (n.link === from || n.peer === origin || !n.healthy) continue;
      if (n.peer !== to) others.push(n);
      // Our own goes around that link: there is one, and it is in doubt.
      else if (from !== undefined) return offer(n, marshal(m));
    }
    if (from !== undefined && m.hops === 0) return 0;
    const bytes = marshal(from === undefined ? m : { ...m, hops: m.hops - 1 });
    const via = this.#via.get(to); // what came back over a link leads there
    const random = this.#o.random ?? Math.random;
    const order = others.map((n) => ({ n, rank: n.link === via ? -1 : random() }));
    order.sort((a, b) => a.rank - b.rank);
    let given = 0;
    for (const { n } of order) {
      given += offer(n, bytes);
      if (given === fanout) break;
    }
    return given;
  }
}

function offer(n: Neighbour, bytes: Uint8Array): number {
  if (n.waiting >= maxAhead) return 0;
  n.send(bytes);
  return 1;
}
