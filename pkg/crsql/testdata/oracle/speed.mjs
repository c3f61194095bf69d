// The reference of the Go benchmarks: cr-sqlite's wasm without Asyncify, in memory, called through the module's exports.
//
// Usage: node speed.mjs NODE_MODULES ROWS
//
// Prints one line of JSON: the seconds that each takes, for ROWS rows of four columns.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const dist = join(process.argv[2], "@vlcn.io/wa-sqlite/dist");
const rows = Number(process.argv[3]);
const { default: factory } = await import(pathToFileURL(join(dist, "crsqlite-sync.mjs")));
const wasm = await factory({ wasmBinary: readFileSync(join(dist, "crsqlite-sync.wasm")) });
const [OK, ROW, DONE, TRANSIENT] = [0, 100, 101, -1];
const [INTEGER, FLOAT, TEXT, BLOB] = [1, 2, 3, 4];
const encoder = new TextEncoder();

function copy(bytes) {
  const at = wasm._sqlite3_malloc(bytes.length + 1);
  wasm.HEAPU8.set(bytes, at);
  wasm.HEAPU8[at + bytes.length] = 0;
  return at;
}

function check(code, db) {
  if (code !== OK && code !== ROW && code !== DONE) throw new Error(`SQLite says ${code} (${db})`);
  return code;
}

function open() {
  const out = wasm._sqlite3_malloc(8);
  check(wasm._sqlite3_open_v2(copy(encoder.encode(":memory:")), out, 6, 0));
  const db = wasm.HEAPU32[out >> 2];
  wasm._RegisterExtensionFunctions(db);
  return db;
}

function prepare(db, sql) {
  const out = wasm._sqlite3_malloc(8);
  check(wasm._sqlite3_prepare_v2(db, copy(encoder.encode(sql)), -1, out, 0), sql);
  return wasm.HEAPU32[out >> 2];
}

function run(stmt) {
  while (check(wasm._sqlite3_step(stmt)) === ROW);
  check(wasm._sqlite3_reset(stmt));
}

function exec(db, sql) {
  const stmt = prepare(db, sql);
  run(stmt);
  wasm._sqlite3_finalize(stmt);
}

const integer = (stmt, i, n) => wasm._sqlite3_bind_int64(stmt, i, n | 0, Math.floor(n / 2 ** 32));
function bytes(stmt, i, data, bind) {
  const at = copy(data);
  bind(stmt, i, at, data.length, TRANSIENT);
  wasm._sqlite3_free(at);
}
const text = (stmt, i, s) => bytes(stmt, i, encoder.encode(s), wasm._sqlite3_bind_text);

function timed(f) {
  const start = performance.now();
  f();
  return (performance.now() - start) / 1000;
}

function transaction(db, f) {
  return timed(() => {
    exec(db, "BEGIN");
    f();
    exec(db, "COMMIT");
  });
}

function database() {
  const db = open();
  exec(db, "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a TEXT, b INTEGER, c REAL, d TEXT)");
  exec(db, "SELECT crsql_as_crr('t')");
  return db;
}

function insertRows(db) {
  const stmt = prepare(db, "INSERT INTO t(id, a, b, c, d) VALUES (?, ?, ?, ?, ?)");
  return transaction(db, () => {
    for (let i = 0; i < rows; i++) {
      integer(stmt, 1, i);
      text(stmt, 2, `row ${i}`);
      integer(stmt, 3, (i * 7919) % 1000003);
      wasm._sqlite3_bind_double(stmt, 4, i / 3);
      text(stmt, 5, "some text");
      run(stmt);
    }
  });
}

const copied = (at, length) => wasm.HEAPU8.slice(at, at + length);

function value(stmt, i) {
  switch (wasm._sqlite3_column_type(stmt, i)) {
    case INTEGER: {
      const low = wasm._sqlite3_column_int64(stmt, i) >>> 0;
      return { kind: INTEGER, value: wasm.getTempRet0() * 2 ** 32 + low };
    }
    case FLOAT:
      return { kind: FLOAT, value: wasm._sqlite3_column_double(stmt, i) };
    case TEXT:
      return { kind: TEXT, value: copied(wasm._sqlite3_column_text(stmt, i), wasm._sqlite3_column_bytes(stmt, i)) };
    case BLOB:
      return { kind: BLOB, value: copied(wasm._sqlite3_column_blob(stmt, i), wasm._sqlite3_column_bytes(stmt, i)) };
    default:
      return null;
  }
}

function bind(stmt, i, v) {
  if (v === null) wasm._sqlite3_bind_null(stmt, i);
  else if (v.kind === INTEGER) integer(stmt, i, v.value);
  else if (v.kind === FLOAT) wasm._sqlite3_bind_double(stmt, i, v.value);
  else bytes(stmt, i, v.value, v.kind === TEXT ? wasm._sqlite3_bind_text : wasm._sqlite3_bind_blob);
}

const from = database();
const insert = insertRows(from);
const changes = [];
const read = timed(() => {
  const stmt = prepare(from, "SELECT * FROM crsql_changes WHERE db_version > 0");
  while (check(wasm._sqlite3_step(stmt)) === ROW) {
    changes.push(Array.from({ length: 9 }, (_, i) => value(stmt, i)));
  }
});
const to = database();
const merge = prepare(to, "INSERT INTO crsql_changes VALUES (?,?,?,?,?,?,?,?,?)");
const apply = () =>
  transaction(to, () => {
    for (const change of changes) {
      change.forEach((v, i) => {
        bind(merge, i + 1, v);
      });
      run(merge);
    }
  });
const applyNew = apply();
const applyAgain = apply();
if (changes.length !== 4 * rows) throw new Error(`${changes.length} changes`);
console.log(JSON.stringify({ insert, read, applyNew, applyAgain }));
