// The page of the client tests: the library, and what it counts.

import { type Client, createRoom, type OpenOptions, open, type SqlValue } from "../../src/index.ts";
import { liveConnections } from "../../src/mesh/conn.ts";
import { candidatesBeforeDescription, crossingRestarts, lostOffer } from "./glare.ts";

/** What a test calls in the page. */
export interface Harness {
  createRoom: typeof createRoom;
  open(options: OpenOptions): Promise<void>;
  client: Client | undefined;
  /** Names of tables that onChange told of. */
  changed: Set<string>;
  liveConnections(): number;
  crossingRestarts: typeof crossingRestarts;
  candidatesBeforeDescription: typeof candidatesBeforeDescription;
  lostOffer: typeof lostOffer;
  /** Silences every channel that is open, without a word to anybody: as if the network had gone. */
  mute(): void;
  /** Sends bytes on every open channel, past the library. */
  inject(bytes: Uint8Array<ArrayBuffer>): void;
  exec(sql: string, ...args: SqlValue[]): Promise<number>;
  query(sql: string, ...args: SqlValue[]): Promise<SqlValue[][]>;
}

const channels = new Set<RTCDataChannel>();
const create = RTCPeerConnection.prototype.createDataChannel;
RTCPeerConnection.prototype.createDataChannel = function (...args) {
  const channel = create.apply(this, args);
  channels.add(channel);
  return channel;
};

const harness: Harness = {
  createRoom,
  client: undefined,
  changed: new Set(),
  liveConnections,
  crossingRestarts,
  candidatesBeforeDescription,
  lostOffer,
  mute() {
    for (const channel of channels) {
      channel.send = () => {};
      channel.onmessage = null;
    }
  },
  inject(bytes) {
    for (const channel of channels) if (channel.readyState === "open") channel.send(bytes);
  },
  async open(options) {
    const client = await open(options);
    client.onChange((tables) => {
      for (const table of tables) harness.changed.add(table);
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
