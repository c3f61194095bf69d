// The worker of the engine's browser test.

import {
  blob,
  equalValues,
  integer,
  nullValue,
  real,
  text,
  textString,
  type Value,
} from "../../src/changeset/value.ts";
import { openStore, type StorageKind } from "../../src/engine/open.ts";
import type { SqliteStore } from "../../src/engine/store.ts";

export interface Call {
  id: number;
  method: keyof typeof methods;
  args: unknown[];
}

export type Reply = { id: number; result?: unknown; error?: string } | { acked: number };

let opened: SqliteStore | undefined;

const VALUES: [string, Value][] = [
  ["2^53+1", integer(2n ** 53n + 1n)],
  ["smallest", integer(-(2n ** 63n))],
  ["2.0", real(2)],
  ["empty text", textString("")],
  ["empty blob", blob(new Uint8Array(0))],
  ["null", nullValue()],
  ["NUL", textString("a\0b")],
  ["not UTF-8", text(Uint8Array.of(0xff, 0x61))],
  ["größe 🦫", textString("größe 🦫")],
  ["10 MB", blob(new Uint8Array(10 << 20).map((_, i) => (i * 31) >> 3))],
];

function store(): SqliteStore {
  if (opened === undefined) throw new Error("no store is open");
  return opened;
}

let requests = 0;
const session = crypto.randomUUID();

async function exec(sql: string, ...args: Value[]): Promise<void> {
  await store().exec(`${session} ${requests++}`, sql, args);
}

async function rows(sql: string): Promise<readonly (readonly Value[])[]> {
  return (await store().query(sql, [])).rows;
}

const methods = {
  async open(name: string, kind?: StorageKind): Promise<string> {
    opened = await openStore(name, kind);
    await exec("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('t')");
    return (await opened.state()).site;
  },
  async close(): Promise<void> {
    await store().close();
  },
  async writeValues(): Promise<void> {
    for (const [i, [, value]] of VALUES.entries())
      await exec("INSERT INTO t VALUES (?, ?)", integer(-1 - i), value);
  },
  /** Names of the values that are not as they were written. */
  async wrongValues(): Promise<string[]> {
    const found = await rows("SELECT v FROM t WHERE id < 0 ORDER BY id DESC");
    return VALUES.filter(([, value], i) => !equalValues(found[i]?.[0] ?? textString("missing"), value)).map(
      ([n]) => n,
    );
  },
  /** Writes row after row, each a commit of its own, until it is killed; says which ones were acknowledged. */
  async writeForEver(): Promise<void> {
    for (let i = (await methods.count()).count + 1; ; i++) {
      await exec("INSERT INTO t VALUES (?, ?)", integer(i), textString(`row ${i}`));
      postMessage({ acked: i } satisfies Reply);
    }
  },
  /** The same, and takes a new site id after every second row. */
  async renewForEver(): Promise<void> {
    for (let i = (await methods.count()).count + 1; ; i++) {
      await exec("INSERT INTO t VALUES (?, ?)", integer(i), textString(`row ${i}`));
      postMessage({ acked: i } satisfies Reply);
      if (i % 2 === 0) await store().renew();
    }
  },
  /** What is wrong with sites and versions, and how many new site ids there were. */
  async sites(): Promise<{ wrong: number; renewals: number }> {
    const counts = [
      "SELECT count(*) FROM t__crsql_clock WHERE site_id NOT IN (SELECT ordinal FROM crsql_site_id)",
      "SELECT (SELECT site_id FROM crsql_site_id WHERE ordinal = 0) IS NOT crsql_site_id()",
      "SELECT count(*) FROM t__crsql_clock WHERE db_version > (SELECT value FROM crmesh_meta WHERE key = 'high_water')",
      `SELECT count(*) FROM crmesh_log l LEFT JOIN crmesh_vector v USING (site)
         WHERE v.version IS NULL OR v.version < l.origin_version OR l.origin_version <> l.local_version`,
      "SELECT count(*) FROM t__crsql_clock c WHERE (site_id = 0) <> (db_version NOT IN (SELECT local_version FROM crmesh_log))",
      "SELECT count(*) FROM (SELECT 1 FROM t__crsql_clock GROUP BY db_version, seq HAVING count(*) > 1)",
    ].map((sql) => `(${sql})`);
    const [row] = await rows(`SELECT ${counts.join(" + ")}, (SELECT count(*) - 1 FROM crsql_site_id)`);
    const number = (v: Value | undefined) => Number(v !== undefined && "int" in v ? v.int : -1);
    return { wrong: number(row?.[0]), renewals: number(row?.[1]) };
  },
  async write(id: number): Promise<void> {
    await exec("INSERT INTO t VALUES (?, 'x')", integer(id));
  },
  async count(): Promise<{ count: number; max: number; own: number; integrity: string }> {
    const [row] = await rows("SELECT count(*), coalesce(max(id), 0) FROM t WHERE id > 0");
    const [check] = await rows("SELECT integrity_check FROM pragma_integrity_check");
    const number = (v: Value | undefined) => Number(v !== undefined && "int" in v ? v.int : -1);
    const integrity =
      check?.[0] !== undefined && "bytes" in check[0] ? new TextDecoder().decode(check[0].bytes) : "";
    return { count: number(row?.[0]), max: number(row?.[1]), own: (await store().heads()).own, integrity };
  },
};

addEventListener("message", async ({ data }: MessageEvent<Call>) => {
  try {
    const method = methods[data.method] as (...args: unknown[]) => Promise<unknown>;
    postMessage({ id: data.id, result: await method(...data.args) } satisfies Reply);
  } catch (error) {
    const reason = error instanceof Error && "reason" in error ? `${error.reason}: ` : "";
    postMessage({
      id: data.id,
      error: `${reason}${error instanceof Error ? error.message : error}`,
    } satisfies Reply);
  }
});
