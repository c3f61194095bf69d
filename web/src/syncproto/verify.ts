// Answers to questions about what our database holds, and rows that are sent again.

import { reachedOf } from "./claims.ts";
import { compose } from "./compose.ts";
import {
  type DigestAnswer,
  type DigestContent,
  type DigestRequest,
  fittingParts,
  type Resend,
} from "./digest.ts";
import { CodeFlow, malformed, ProtocolError } from "./errors.ts";
import type { Link } from "./link.ts";
import { TypeDigestAnswer } from "./message.ts";
import { type Entry, type LinkID, type LookRequest, type LookResult, TickMillis } from "./ops.ts";
import type { CoreState } from "./state.ts";

/**
 * How much time looks for other sides may have taken lately for another one to begin. What they have taken is forgotten at
 * half the speed of time: so they take at most half of one reader's time, whoever asks however often.
 */
export const LookMillis = TickMillis / 2;

/** What the other side of a link has asked and was not told yet. It may ask one question at a time. */
export interface Questions {
  question: DigestRequest | undefined;
  resend: Resend | undefined;
}

export function newQuestions(): Questions {
  return { question: undefined, resend: undefined };
}

/** The looks into the store of a core. */
export interface Looks {
  /** Ids given to them. */
  count: number;
  /** The outstanding one. */
  current: { readonly id: number; readonly link: LinkID } | undefined;
  /** Whose question was taken last. */
  turn: LinkID;
  /** Milliseconds that they have taken and that are not forgotten. */
  cost: number;
}

export function newLooks(): Looks {
  return { count: 0, current: undefined, turn: 0, cost: 0 };
}

export function stepDigestRequest(c: CoreState, l: Link, m: DigestRequest): void {
  if (l.question) {
    c.fail(l, new ProtocolError(CodeFlow, "a digest was asked for before the last question was answered"));
    return;
  }
  l.question = m;
}

/** A browser asks nothing. */
export function stepDigestAnswer(c: CoreState, l: Link, _: DigestAnswer): void {
  c.fail(l, malformed("a digest answer came that was not asked for"));
}

/**
 * Notes which rows the other side wants. While one such message waits, others are dropped: who has not got the rows asks
 * again. A reader has nothing to send.
 */
export function stepResend(c: CoreState, l: Link, m: Resend): void {
  if (c.cfg.writer && !l.resend) l.resend = m;
}

/** Begins the look of the next link in turn that waits for one. There is one at a time. */
export function startLook(c: CoreState): void {
  const { looks } = c;
  if (looks.current || looks.cost >= LookMillis) return;
  const waiting = c.order.map((id) => c.link(id)).filter((l) => !l.closing && (l.question || l.resend));
  const next = waiting.find((l) => l.id > looks.turn) ?? waiting[0];
  if (!next) return;
  looks.turn = next.id;
  looks.current = { id: ++looks.count, link: next.id };
  // A resend comes before a question about the same rows.
  const request: LookRequest = next.resend
    ? { id: looks.count, link: next.id, resend: next.resend, digest: undefined }
    : { id: looks.count, link: next.id, resend: undefined, digest: next.question };
  c.pending.look = request;
}

/** Answers a LookRequest. */
export function lookDone(c: CoreState, r: LookResult): void {
  const { current } = c.looks;
  if (!current || current.id !== r.id) return;
  c.looks.current = undefined;
  c.looks.cost += Math.max(r.millis, 1);
  const l = c.open(current.link);
  if (!l) return;
  if (r.answer && l.question) {
    answer(c, l, l.question.id, r.answer);
    l.question = undefined;
  } else {
    l.resend = undefined;
    sendAgain(c, l, r.entries);
  }
}

function answer(c: CoreState, l: Link, id: number, content: DigestContent): void {
  c.send(l, { ...content, parts: fittingParts(content.parts), type: TypeDigestAnswer, id });
}

// Sends entries, or parts of them, though the other side may cover them: to mend what it lacks all the same. They go
// through the window like others, behind what waits for it.
function sendAgain(c: CoreState, l: Link, entries: readonly Entry[]): void {
  if (!l.live || !c.cfg.writer) return;
  const { parts } = compose(c, l, entries, 0);
  for (const part of parts) part.m.reached = reachedOf(l, Number.MAX_SAFE_INTEGER);
  if (parts.length > 0) l.owed = true; // the other side takes a message without claims for the midst of a walk
  l.outbox.push(...parts);
}
