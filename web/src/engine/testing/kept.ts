// A database for tests in Node whose file is kept, in memory: it can be opened again, copied and put back.

import { BLOCK, PagedFile } from "../pages.ts";
import type { Database } from "../sqlite.ts";
import { SqliteStore, type Storage } from "../store.ts";
import { instantiate } from "../wasm.ts";
import { openPaged, wasmBinary } from "./memory.ts";

/** What a browser would keep: a copy of every block after each commit. */
export class Kept implements Storage {
  blocks: Uint8Array[] = [];
  size = 0;
  syncs = 0;
  file = new PagedFile([], 0);

  async sync(): Promise<void> {
    const changes = this.file.takeChanges();
    if (changes === undefined) return;
    this.syncs++;
    this.size = changes.size;
    for (const [n, block] of changes.blocks) this.blocks[n] = block.slice();
    this.blocks.length = Math.ceil(this.size / BLOCK);
  }

  async close(): Promise<void> {}

  /** A store on what was kept, as after the end of the process, and its database, which a renewal opens anew. */
  async open(): Promise<{ store: SqliteStore; readonly db: Database }> {
    this.file = new PagedFile(
      this.blocks.map((block) => block.slice()),
      this.size,
    );
    const { file } = this;
    const wasm = await instantiate({ wasmBinary });
    wasm.registerVFS(file, false);
    let db: Database | undefined;
    const store = new SqliteStore(() => {
      db = openPaged(wasm, file);
      return db;
    }, this);
    return {
      store,
      get db() {
        return db as Database;
      },
    };
  }

  /** Another file with what is kept now. */
  copy(): Kept {
    const copy = new Kept();
    [copy.blocks, copy.size] = [this.blocks.map((block) => block.slice()), this.size];
    return copy;
  }
}
