// A client without a mesh: a real cr-sqlite in memory, and a status that a test sets. For tests of the page alone.

import wasmURL from "@vlcn.io/wa-sqlite/dist/crsqlite-sync.wasm?url";
import type { ExecResult } from "../../src/client/client.ts";
import { Database } from "../../src/engine/sqlite.ts";
import { instantiate } from "../../src/engine/wasm.ts";
import type { ClientStatus, Rows, Source, SqlValue } from "../../src/react/index.ts";

export class FakeClient implements Source {
  readonly #db: Database;
  readonly #changes = new Set<(tables: ReadonlySet<string>) => void>();
  readonly #statuses = new Set<() => void>();
  #status: ClientStatus = {
    writer: true,
    leader: true,
    storage: "opfs",
    site: "00".repeat(16),
    signal: { state: "joined", error: undefined },
    members: [],
    synced: true,
    received: 0,
    remaining: 0,
    parked: { changes: 0, bytes: 0, tables: [], more: 0 },
    renewals: 0,
    problem: undefined,
  };

  private constructor(db: Database) {
    this.#db = db;
  }

  static async open(): Promise<FakeClient> {
    return new FakeClient(new Database(await instantiate({ locateFile: () => wasmURL }), ":memory:"));
  }

  async exec(sql: string, args: readonly SqlValue[] = []): Promise<ExecResult> {
    let changes = 0;
    this.#db.transaction(() => {
      this.#db.script(sql, (statement) => {
        statement.run(...args);
        changes += this.#db.changes;
      });
    });
    const tables = new Set(this.#db.all("SELECT name FROM sqlite_master").map(([name]) => String(name)));
    for (const listener of this.#changes) listener(tables);
    return { changes };
  }

  async query(sql: string, args: readonly SqlValue[] = []): Promise<Rows> {
    const statement = this.#db.compile(sql);
    try {
      const rows = statement.all(...args);
      const columns = Array.from({ length: statement.columnCount }, (_, i) => statement.columnName(i));
      return { columns, rows };
    } finally {
      statement.finalize();
    }
  }

  onChange(listener: (tables: ReadonlySet<string>) => void): () => void {
    this.#changes.add(listener);
    return () => this.#changes.delete(listener);
  }

  status(): ClientStatus {
    return this.#status;
  }

  subscribe(listener: () => void): () => void {
    this.#statuses.add(listener);
    return () => this.#statuses.delete(listener);
  }

  setStatus(change: Partial<ClientStatus>): void {
    this.#status = { ...this.#status, ...change };
    for (const listener of this.#statuses) listener();
  }
}
