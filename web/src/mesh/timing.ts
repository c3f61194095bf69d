// The times of docs/PROTOCOL.md and docs/SIGNALING.md, in ms.

/** Times that a test may shorten. */
export interface Timing {
  /** The silence after which a peer pings. */
  readonly ping: number;
  /** The silence after which a link is suspect and its ICE is restarted. */
  readonly suspect: number;
  /** The silence after which a link is dead and closed. */
  readonly dead: number;
  /** How long the peer with the lesser id waits for an offer before it asks for one, and between asking. */
  readonly want: number;
  /** How long an ICE restart may take before the link is built anew. */
  readonly restart: number;
  /** How long a new connection may take until its channel is open. */
  readonly attempt: number;
  /** Bounds of the pause after attempts that failed. */
  readonly minBackoff: number;
  readonly maxBackoff: number;
  /** The pause after a link that one side closed on purpose. */
  readonly refused: number;
  /** How long a link that is being closed may take to send what it has. */
  readonly flush: number;
  /** How often links are looked at. */
  readonly beat: number;
}

export const defaultTiming: Timing = {
  ping: 2_000,
  suspect: 5_000,
  dead: 15_000,
  want: 5_000,
  restart: 8_000,
  attempt: 20_000,
  minBackoff: 1_000,
  maxBackoff: 30_000,
  refused: 30_000,
  flush: 1_000,
  beat: 250,
};

/**
 * The pause before the n-th repetition (from 0): at least half of the doubled time, so that it is never near zero, and
 * the other half at random, so that members that lost each other together do not return together.
 */
export function backoff(t: Timing, n: number, random: () => number): number {
  const ceiling = Math.min(t.minBackoff * 2 ** n, t.maxBackoff);
  return ceiling / 2 + (random() * ceiling) / 2;
}
