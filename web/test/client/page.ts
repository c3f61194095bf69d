// The page of the client tests: the library, and what it counts.

import { type Client, createRoom, type OpenOptions, open, type SqlValue } from "../../src/index.ts";
import { liveConnections } from "../../src/mesh/conn.ts";

/** What a test calls in the page. */
export interface Harness {
  createRoom: typeof createRoom;
  open(options: OpenOptions): Promise<void>;
  client: Client | undefined;
  /** Names of tables that onChange told of. */
  changed: Set<string>;
  liveConnections(): number;
  exec(sql: string, ...args: SqlValue[]): Promise<number>;
  query(sql: string, ...args: SqlValue[]): Promise<SqlValue[][]>;
}

const harness: Harness = {
  createRoom,
  client: undefined,
  changed: new Set(),
  liveConnections,
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
