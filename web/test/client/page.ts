// The page of the client tests: the library, and what it counts.

import { type Client, createRoom, type OpenOptions, open, type SqlValue } from "../../src/index.ts";
import { liveConnections } from "../../src/mesh/conn.ts";
import { candidatesBeforeDescription, crossingRestarts, lostOffer, lostRestart } from "./glare.ts";

/** What a test calls in the page. */
export interface Harness {
  createRoom: typeof createRoom;
  open(options: OpenOptions): Promise<void>;
  client: Client | undefined;
  /** Names of tables that onChange told of. */
  changed: Set<string>;
  /** Why there was no link to a member, all that the status has ever said. */
  errors: Set<string>;
  liveConnections(): number;
  crossingRestarts: typeof crossingRestarts;
  candidatesBeforeDescription: typeof candidatesBeforeDescription;
  lostOffer: typeof lostOffer;
  lostRestart: typeof lostRestart;
  /** Silences every channel that is open, without a word to anybody: as if the network had gone. */
  mute(): void;
  /** Closes the channel that is open longest, without a word to anybody. */
  cut(): void;
  /** How many channels are open. */
  openChannels(): number;
  /** How many channels there have been. */
  madeChannels(): number;
  /** The kinds of this side's addresses that connections with an open channel use now: "host", "relay" and so on. */
  localCandidates(): Promise<string[]>;
  /** Sends bytes on every open channel, past the library. */
  inject(bytes: Uint8Array<ArrayBuffer>): void;
  exec(sql: string, ...args: SqlValue[]): Promise<number>;
  query(sql: string, ...args: SqlValue[]): Promise<SqlValue[][]>;
}

const channels = new Map<RTCDataChannel, RTCPeerConnection>();
const create = RTCPeerConnection.prototype.createDataChannel;
RTCPeerConnection.prototype.createDataChannel = function (...args) {
  const channel = create.apply(this, args);
  channels.set(channel, this);
  return channel;
};

const harness: Harness = {
  createRoom,
  client: undefined,
  changed: new Set(),
  errors: new Set(),
  liveConnections,
  crossingRestarts,
  candidatesBeforeDescription,
  lostOffer,
  lostRestart,
  mute() {
    for (const channel of channels.keys()) {
      channel.send = () => {};
      channel.onmessage = null;
    }
  },
  cut() {
    for (const channel of channels.keys()) {
      if (channel.readyState !== "open") continue;
      channel.close();
      return;
    }
  },
  openChannels() {
    return [...channels.keys()].filter((c) => c.readyState === "open").length;
  },
  madeChannels() {
    return channels.size;
  },
  async localCandidates() {
    const kinds: string[] = [];
    for (const [channel, pc] of channels) {
      if (channel.readyState !== "open") continue;
      const stats = await pc.getStats();
      for (const [, report] of stats) {
        if (report.type !== "transport") continue;
        const pair = stats.get(report.selectedCandidatePairId);
        kinds.push(stats.get(pair?.localCandidateId)?.candidateType);
      }
    }
    return kinds;
  },
  inject(bytes) {
    for (const channel of channels.keys()) if (channel.readyState === "open") channel.send(bytes);
  },
  async open(options) {
    const client = await open(options);
    client.onChange((tables) => {
      for (const table of tables) harness.changed.add(table);
    });
    client.subscribe(() => {
      for (const { error } of client.status().members) if (error !== undefined) harness.errors.add(error);
    });
    harness.client = client;
  },
  async exec(sql, ...args) {
    if (!harness.client) throw new Error("not open");
    return (await harness.client.exec(sql, args)).changes;
  },
  async query(sql, ...args) {
    if (!harness.client) throw new Error("not open");
    return (await harness.client.query(sql, args)).rows.map((row) => [...row]);
  },
};

Object.assign(globalThis, { harness });
