// The reference engine for the Go tests: @vlcn.io/crsqlite-wasm on databases in memory or in files, driven by lines of
// JSON.
//
// Usage: node oracle.mjs NODE_MODULES
//
// Request:  {"db": "A", "run": [{"sql": "...", "args": [VALUE...]}...]}   one statement each
// Response: {"results": [{"rows": [[VALUE...]...]} or {"error": "..."}...]}   one for each
// VALUE is null, ["integer", "-1"], ["real", hex of 8 bytes], ["text", hex] or ["blob", hex].
// A database opens when it is first named, in memory; {"db": "A", "file": PATH} opens a file instead, and answers
// {"error": "..."} if it cannot. {"db": "A", "close": true} closes it.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { FileVFS } from "./filevfs.mjs";

const modules = process.argv[2];
const load = (path) => import(pathToFileURL(join(modules, path)));
// CRMESH_ORACLE=sync takes the same engine without Asyncify, which is faster.
const [dir, name] =
  process.env.CRMESH_ORACLE === "sync"
    ? ["@vlcn.io/wa-sqlite/dist", "crsqlite-sync"]
    : ["@vlcn.io/crsqlite-wasm/dist", "crsqlite"];
const { default: Engine } = await load(`${dir}/${name}.mjs`);
const { Factory, SQLITE_ROW } = await load("@vlcn.io/wa-sqlite/src/sqlite-api.js");
const dist = join(modules, dir);
const wasm = await Engine({
  wasmBinary: readFileSync(join(dist, `${name}.wasm`)),
  locateFile: (file) => join(dist, file),
});
const sqlite = Factory(wasm);
const files = new FileVFS();
sqlite.vfs_register(files, false);
const transient = -1;
const [INTEGER, REAL, TEXT, , NULL] = [1, 2, 3, 4, 5];

// The api's own binds cut text at a NUL and turn an empty blob into NULL.
function bindBytes(call, stmt, i, bytes) {
  const at = wasm._malloc(bytes.length + 1);
  wasm.HEAPU8.set(bytes, at);
  wasm.ccall(call, "number", Array(5).fill("number"), [stmt, i, at, bytes.length, transient]);
  wasm._free(at);
}

function bind(stmt, i, value) {
  const [kind, data] = value ?? ["null"];
  if (kind === "integer") sqlite.bind_int64(stmt, i, BigInt(data));
  else if (kind === "real") sqlite.bind_double(stmt, i, Buffer.from(data, "hex").readDoubleBE());
  else if (kind === "text") bindBytes("sqlite3_bind_text", stmt, i, Buffer.from(data, "hex"));
  else if (kind === "blob") bindBytes("sqlite3_bind_blob", stmt, i, Buffer.from(data, "hex"));
  else sqlite.bind_null(stmt, i);
}

function column(stmt, i) {
  const kind = sqlite.column_type(stmt, i);
  if (kind === INTEGER) return ["integer", sqlite.column_int64(stmt, i).toString()];
  if (kind === REAL) {
    const bytes = Buffer.alloc(8);
    bytes.writeDoubleBE(sqlite.column_double(stmt, i));
    return ["real", bytes.toString("hex")];
  }
  if (kind === NULL) return null;
  const bytes = Buffer.from(sqlite.column_blob(stmt, i)).toString("hex");
  return [kind === TEXT ? "text" : "blob", bytes];
}

const databases = new Map();

async function run(db, { sql, args = [] }) {
  let rows = [];
  try {
    for await (const stmt of sqlite.statements(db, sql)) {
      args.forEach((value, i) => { bind(stmt, i + 1, value); });
      rows = [];
      const columns = sqlite.column_count(stmt);
      while ((await sqlite.step(stmt)) === SQLITE_ROW) {
        rows.push(Array.from({ length: columns }, (_, i) => column(stmt, i)));
      }
    }
  } catch (error) {
    return { error: error.message || String(error) };
  }
  return { rows };
}

// open returns what is wrong, or nothing.
async function open(name, file) {
  try {
    if (file) files.add(name, file);
    databases.set(name, await sqlite.open_v2(file ? name : ":memory:", undefined, file && files.name));
  } catch (error) {
    files.abandon(name);
    return { error: `SQLite's code ${error.code}: ${error.message}` };
  }
}

async function answer({ db: name, file, run: steps, close }) {
  const failed = databases.has(name) ? undefined : await open(name, file);
  if (failed) return failed;
  const db = databases.get(name);
  const results = [];
  for (const step of steps ?? []) results.push(await run(db, step));
  if (close) {
    databases.delete(name);
    await run(db, { sql: "SELECT crsql_finalize()" });
    await sqlite.close(db);
  }
  return { results };
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line)))}\n`);
}
