// Which members to be linked with: docs/SIGNALING.md, "The graph of a room". No links here, only the choice.

import { graph } from "../signaling/graph.ts";
import type { PeerID } from "../signaling/id.ts";
import type { Member, Meta } from "../signaling/messages.ts";
import type { Timing } from "./timing.ts";

/** The part of `timing.repair` in which those in the place of others have to answer while most do. */
const hasty = 4;
/** The least pace where few answer, and the bound of the pace: pauses of 1, 2 and 4 times `timing.repair`. */
const fewPace = 2;
const maxPace = 4;
/** Bounds how long it is remembered who failed in the place of others: 16 times `timing.forget`. */
const maxForget = 4;

/** How the link to a member is. Times are in ms, on the clock of the calls. */
export interface LinkNow {
  readonly open: boolean;
  /** When something came last. */
  readonly heard: number;
  /** Both sides have said hello; and the other one has proved to be a writer. */
  readonly live: boolean;
  readonly writer: boolean;
  /** The other side has answered, and the first attempt goes on. */
  readonly coming: boolean;
}

/** What is remembered of a member. Times that are undefined: it is not so. */
interface Note {
  /** Since when it is wanted and does not answer over a link. */
  missing: number | undefined;
  /** Since when others take its place. */
  failed: number | undefined;
  /** It failed after a short time, in the place of another, and is tried on until the usual time is over. */
  doubted: boolean;
  /** How often it failed in the place of another, since it answered. */
  times: number;
  /** It is listed as a writer, and its hello has shown a reader: it passes nothing on. */
  reads: boolean;
  /** Since when it is linked and not wanted. */
  surplus: number | undefined;
}

/**
 * Chooses the members to be linked with: those of the graph that all members compute alike from the list of the room, and
 * others in the place of those that cannot be linked.
 */
export class Neighbours {
  readonly #self: Member;
  readonly #timing: Timing;
  readonly #listed: ReadonlyMap<PeerID, Meta>;
  readonly #notes = new Map<PeerID, Note>();
  #graph: ReadonlySet<PeerID> = new Set();
  #wanted: ReadonlySet<PeerID> = new Set();
  // What does not answer may only be slow, and more attempts would not make it faster. So the pace slows down where those that were
  // given up answer after all, or few answer; #pause says what it stands for.
  #pace = 0;
  #notUntil = 0; // until when none of those in the place of others is given up

  /** `listed` is the caller's list, without `self`; what changes in it counts from the next `choose` on. */
  constructor(self: Member, timing: Timing, listed: ReadonlyMap<PeerID, Meta>) {
    this.#self = self;
    this.#timing = timing;
    this.#listed = listed;
  }

  /** The members that links are to be made to. */
  get wanted(): ReadonlySet<PeerID> {
    return this.#wanted;
  }

  /** The neighbours in the graph of all, which are always wanted. */
  get graph(): ReadonlySet<PeerID> {
    return this.#graph;
  }

  /** Whether a link that the other side asks for makes sense: two readers have nothing for each other. */
  mayLink(m: Meta): boolean {
    return !this.#self.meta.reader || !m.reader;
  }

  /** Computes `wanted` from the list and what is remembered. */
  choose(): void {
    for (const peer of [...this.#notes.keys()]) {
      if (!this.#listed.has(peer)) this.#notes.delete(peer);
    }
    this.#graph = new Set(this.#compute(() => true));
    this.#wanted = this.#graph;
    if ([...this.#graph].some((peer) => this.#out(peer))) {
      // The others see the same graph as before, and this side's without those that are out: they take links that it asks for.
      this.#wanted = new Set([...this.#graph, ...this.#compute((peer) => !this.#out(peer))]);
    }
    const doubted = [...this.#notes].filter(([, note]) => note.doubted).map(([peer]) => peer);
    if (doubted.length > 0) this.#wanted = new Set([...this.#wanted, ...doubted]);
    for (const [peer, note] of this.#notes) {
      if (this.#wanted.has(peer)) note.surplus = undefined;
      else note.missing = undefined;
    }
  }

  /**
   * Notes which wanted members do not answer; whether `wanted` has to be computed anew. Nobody is given up while `alone` is
   * true: then nobody could take an offer. `at` tells how the link to a member is, undefined if there is none.
   */
  look(now: number, alone: boolean, at: (peer: PeerID) => LinkNow | undefined): boolean {
    const { repair } = this.#timing;
    let changed = false;
    let answering = 0;
    let silent = 0;
    let silentOthers = 0; // of these, in the place of others
    for (const peer of this.#wanted) {
      const note = this.#note(peer);
      const k = at(peer);
      this.#listen(now, note, k);
      if (note.missing === undefined) {
        answering++;
      } else if (!k?.coming && (note.failed === undefined || note.doubted)) {
        silent++;
        if (!this.#graph.has(peer)) silentOthers++;
      }
      if (k?.live && !k.writer && !this.#listed.get(peer)?.reader && !note.reads) {
        note.reads = true;
        changed = true;
      }
    }
    const most = answering > 0 && answering >= silent;
    // More are not asked to take a place while as many do not answer as do.
    let places = Math.max(answering, 1) - silentOthers;
    let complete = true;
    let gaveUp = false;
    let wrong = false;
    for (const peer of this.#wanted) {
      const note = this.#note(peer);
      const coming = at(peer)?.coming === true;
      const answers = note.missing === undefined;
      const missing = now - (note.missing ?? now);
      const always = this.#graph.has(peer);
      const hurried = most && missing >= this.#pause();
      if (note.failed !== undefined) {
        if (answers || (note.doubted && coming)) {
          note.failed = undefined;
          note.doubted = false;
          note.times = 0;
          changed = true;
          wrong = true;
        } else if (note.doubted && missing >= repair && !alone) {
          note.doubted = false;
          changed = true;
        }
      } else if (answers) {
        note.times = 0;
      } else if (alone || coming) {
        complete = false;
      } else if (always && missing >= repair && places > 0) {
        note.failed = now;
        changed = true;
        places--;
      } else if (!always && now >= this.#notUntil && (missing >= repair || (hurried && places > 0))) {
        note.failed = now;
        note.times++;
        note.doubted = missing < repair;
        if (note.doubted) places--;
        else gaveUp = true;
        changed = true;
      } else {
        complete = false;
      }
    }
    let pace = this.#pace;
    if (wrong) pace = this.#pace + 1;
    if (gaveUp && !most) pace = Math.max(this.#pace + 1, fewPace);
    if (pace > this.#pace) {
      this.#pace = Math.min(pace, maxPace);
      this.#notUntil = now + this.#pause();
    } else if (complete && !changed) {
      this.#pace = 0;
      this.#notUntil = 0;
    }
    return this.#forget(now, 2 * answering >= this.#graph.size, at) || changed;
  }

  /** Whether each wanted member answers over a link, or others take its place. */
  complete(at: (peer: PeerID) => LinkNow | undefined): boolean {
    return [...this.#wanted].every((peer) => at(peer)?.live === true || this.#out(peer));
  }

  /**
   * Whether the link to a member that is listed and not wanted is to be closed: that has been so for long, and all wanted
   * links are `complete`.
   */
  surplus(now: number, peer: PeerID, complete: boolean): boolean {
    const note = this.#note(peer);
    note.surplus ??= now;
    return complete && now - note.surplus >= this.#timing.surplus;
  }

  /** The link to a member has ended. */
  unlinked(peer: PeerID): void {
    const note = this.#notes.get(peer);
    if (note) note.surplus = undefined;
  }

  // How long nobody is given up in the place of another after the pace has slowed down, and how long they have to answer while
  // most do, ms.
  #pause(): number {
    return (this.#timing.repair / hasty) * 2 ** this.#pace;
  }

  // Notes since when a wanted member does not answer.
  #listen(now: number, note: Note, k: LinkNow | undefined): void {
    const since = k?.open ? k.heard : (note.missing ?? now);
    note.missing = k?.open && now - since < this.#timing.repair ? undefined : since;
  }

  // Makes those that were given up in the place of others as good as any again: those that are linked all the same, and all
  // others after some time, which is longer for those that failed before, and where there are enough links without them.
  #forget(now: number, enough: boolean, at: (peer: PeerID) => LinkNow | undefined): boolean {
    const { repair, forget } = this.#timing;
    let changed = false;
    for (const [peer, note] of this.#notes) {
      if (this.#graph.has(peer) || note.failed === undefined || note.doubted) continue;
      const longer = enough ? maxForget : Math.min(Math.max(note.times, 1) - 1, maxForget);
      const k = at(peer);
      const linked = k?.live === true && now - k.heard < repair;
      if (!linked && now - note.failed < forget * 2 ** longer) continue;
      if (linked) note.times = 0;
      note.failed = undefined;
      changed = true;
    }
    return changed;
  }

  // Whether others are to take the place of a member.
  #out(peer: PeerID): boolean {
    const note = this.#notes.get(peer);
    return note !== undefined && (note.reads || note.failed !== undefined);
  }

  #compute(within: (peer: PeerID) => boolean): PeerID[] {
    const members = [this.#self];
    for (const [peer, meta] of this.#listed) {
      if (within(peer)) members.push({ peer, meta });
    }
    return graph(members, this.#self.peer);
  }

  #note(peer: PeerID): Note {
    let note = this.#notes.get(peer);
    if (!note) {
      note = {
        missing: undefined,
        failed: undefined,
        doubted: false,
        times: 0,
        reads: false,
        surplus: undefined,
      };
      this.#notes.set(peer, note);
    }
    return note;
  }
}
