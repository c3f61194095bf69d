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
  /** How long a link may stay silent after a change of the network until its ICE is restarted. */
  readonly probe: number;
  /** How long an ICE restart may take before the link is built anew. */
  readonly restart: number;
  /** How long a new connection may take until its channel is open. */
  readonly attempt: number;
  /** Bounds of the pause after attempts that failed. */
  readonly minBackoff: number;
  readonly maxBackoff: number;
  /** How long a neighbour may not answer until another member takes its place. */
  readonly repair: number;
  /** How long a link stays that neither the graph nor the other side asks for any more. */
  readonly surplus: number;
  /** How long it is remembered that a member in the place of another could not be linked either. */
  readonly forget: number;
  /** The pause after a link that one side closed on purpose. */
  readonly refused: number;
  /** How long envelopes go over other members after the signaling server could not pass one on. */
  readonly unknown: number;
  /** How long a member that the room no longer lists is tried over other members after its link was lost. */
  readonly mourn: number;
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
  probe: 1_000,
  restart: 8_000,
  attempt: 20_000,
  minBackoff: 1_000,
  maxBackoff: 30_000,
  repair: 10_000,
  surplus: 30_000,
  forget: 120_000,
  refused: 30_000,
  unknown: 10_000,
  mourn: 30_000,
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
