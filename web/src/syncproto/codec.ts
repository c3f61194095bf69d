// Messages as bytes, and back.

import { type Change, SiteIDLen } from "../changeset/change.ts";
import { appendValue } from "../changeset/pack.ts";
import { compareBytes, compareText } from "../changeset/value.ts";
import { ByteWriter } from "../changeset/writer.ts";
import {
  appendDigestAnswer,
  appendDigestRequest,
  appendResend,
  parseDigestAnswer,
  parseDigestRequest,
  parseResend,
} from "./digest.ts";
import { CodeTooLarge, CodeVersion, malformed, ProtocolError, truncate } from "./errors.ts";
import {
  type Bye,
  type Changes,
  type ErrorMessage,
  type Group,
  type Have,
  type Hello,
  MaxChanges,
  MaxGeneration,
  MaxGroups,
  MaxMessage,
  MaxName,
  MaxNeighbours,
  MaxPrunes,
  MaxSchemaBytes,
  MaxSchemaSQL,
  MaxSchemaTables,
  MaxSentence,
  MaxSpanDeps,
  MaxSpans,
  MaxVersion,
  type Message,
  MinMaxMessage,
  ProofLen,
  Protocol,
  type Prune,
  type Schema,
  SchemaHashLen,
  type Span,
  type TableSchema,
  TypeBye,
  TypeChanges,
  TypeDigestAnswer,
  TypeDigestRequest,
  TypeErrorMessage,
  TypeHave,
  TypeHello,
  TypeNeed,
  TypePrune,
  TypeRelay,
  TypeResend,
  TypeSchema,
} from "./message.ts";
import { appendNeed, parseNeed } from "./need.ts";
import { appendRelay, parseRelay } from "./relay.ts";
import { appendTable, parseColumns } from "./tables.ts";
import {
  appendBytes,
  appendSite,
  appendSites,
  appendString,
  appendUvarint,
  appendVector,
  Parser,
  Refs,
} from "./wire.ts";

// Flag bits. All others are zero.
const flagWriter = 1; // hello
const flagFeed = 2;
const flagBusy = 4;
const flagClaims = 1; // changes
const flagSpans = 2;
const flagHaveFeed = 1; // have
const flagHaveBusy = 2;
const flagHaveNeighbours = 4;

// The fewest bytes of what a message counts.
const minGroup = 4; // origin, version, rows, and a row
const minRow = 3;
const minCell = 6;
const minTable = 5;
const minSpan = 4;

const maxErrorCode = 65535;

/**
 * The message that `b` holds, which marshals to `b` again. Keys and values share the memory of `b`, which belongs to
 * the message from then on. Throws a ProtocolError.
 */
export function parse(b: Uint8Array): Message {
  if (b.length > MaxMessage) throw new ProtocolError(CodeTooLarge, "a message is longer than 64 MiB");
  const p = new Parser(b);
  const m = parseBody(p);
  if (p.left > 0) throw malformed("bytes follow the message");
  return m;
}

/** The bytes of `m`, which must be within the limits of message.ts; what the core makes is. */
export function marshal(m: Message): Uint8Array<ArrayBuffer> {
  const w = new ByteWriter(m.type === TypeChanges ? 4096 : 256);
  w.byte(m.type);
  switch (m.type) {
    case TypeHello:
      appendHello(w, m);
      break;
    case TypeChanges:
      appendChanges(w, m);
      break;
    case TypeHave:
      appendHave(w, m);
      break;
    case TypeErrorMessage:
      appendUvarint(w, m.code);
      appendString(w, truncate(m.sentence, MaxSentence));
      break;
    case TypeBye:
      appendString(w, truncate(m.sentence, MaxSentence));
      break;
    case TypeRelay:
      appendRelay(w, m);
      break;
    case TypeSchema:
      w.bytes(m.hash);
      appendUvarint(w, m.generation);
      appendUvarint(w, m.tables.length);
      for (const t of m.tables) appendTable(w, t);
      break;
    case TypePrune:
      appendSites(w, m.prune);
      appendSites(w, m.graft);
      break;
    case TypeDigestRequest:
      appendDigestRequest(w, m);
      break;
    case TypeDigestAnswer:
      appendDigestAnswer(w, m);
      break;
    case TypeResend:
      appendResend(w, m);
      break;
    case TypeNeed:
      appendNeed(w, m);
  }
  return w.take();
}

/** Whether a message is a hello with the writer flag, if it is a message at all. */
export function claimsWriter(b: Uint8Array): boolean {
  const flags = b[2 + SiteIDLen] ?? 0;
  return b[0] === TypeHello && b[1] === Protocol && (flags & flagWriter) !== 0;
}

function parseBody(p: Parser): Message {
  const type = p.byte();
  switch (type) {
    case TypeHello:
      return parseHello(p);
    case TypeChanges:
      return parseChanges(p);
    case TypeHave:
      return parseHave(p);
    case TypeErrorMessage:
      return parseError(p);
    case TypeBye: {
      const bye: Bye = { type, sentence: p.text("the sentence", 0, MaxSentence) };
      return bye;
    }
    case TypeSchema:
      return parseSchema(p);
    case TypePrune:
      return parsePrune(p);
    case TypeRelay:
      return parseRelay(p);
    case TypeDigestRequest:
      return parseDigestRequest(p);
    case TypeDigestAnswer:
      return parseDigestAnswer(p);
    case TypeResend:
      return parseResend(p);
    case TypeNeed:
      return parseNeed(p);
    default:
      throw malformed(`a message has the unknown type ${type}`);
  }
}

/** Reads a byte with no bit set but those of `all`. */
export function parseFlags(p: Parser, all: number): number {
  const f = p.byte();
  if ((f & ~all) !== 0) throw malformed("an unknown flag is set");
  return f;
}

function flag(set: boolean, bit: number): number {
  return set ? bit : 0;
}

function appendHello(w: ByteWriter, m: Hello): void {
  appendUvarint(w, Protocol);
  appendSite(w, m.site);
  w.byte(flag(m.writer, flagWriter) | flag(m.feed, flagFeed) | flag(m.busy, flagBusy));
  appendBytes(w, m.proof);
  w.bytes(m.schemaHash);
  appendUvarint(w, m.maxMessage);
  appendUvarint(w, m.resume);
  appendSites(w, m.neighbours);
  appendVector(w, m.vector);
}

function parseHello(p: Parser): Hello {
  const version = p.uvarint();
  if (version !== Protocol) {
    // What follows may look different in another version.
    throw new ProtocolError(
      CodeVersion,
      `the other side speaks protocol version ${version}, this one speaks ${Protocol}: update the older of the two`,
    );
  }
  const site = p.site();
  const f = parseFlags(p, flagWriter | flagFeed | flagBusy);
  const writer = (f & flagWriter) !== 0;
  const proof = p.bytes();
  if (proof.length !== (writer ? ProofLen : 0)) {
    throw malformed("a writer's proof has 64 bytes, a reader has none");
  }
  return {
    type: TypeHello,
    site,
    writer,
    feed: (f & flagFeed) !== 0,
    busy: (f & flagBusy) !== 0,
    proof,
    schemaHash: p.take(SchemaHashLen),
    maxMessage: p.number("the largest message", MinMaxMessage),
    resume: p.number("resume", 0),
    neighbours: p.siteList("neighbours", MaxNeighbours),
    vector: p.vector(),
  };
}

function appendChanges(w: ByteWriter, m: Changes): void {
  w.byte(flag(m.claims !== undefined, flagClaims) | flag(m.spans.length > 0, flagSpans));
  appendUvarint(w, m.reached);
  appendUvarint(w, m.remaining);
  appendUvarint(w, m.groups.length);
  const sites = Refs.sites();
  const names = Refs.names();
  for (const g of m.groups) appendGroup(w, g, sites, names);
  if (m.claims) {
    appendVector(w, m.claims);
    appendVector(w, m.deps ?? new Map());
  }
  if (m.spans.length === 0) return;
  appendUvarint(w, m.spans.length);
  for (const s of m.spans) {
    sites.append(w, s.origin);
    appendUvarint(w, s.after);
    appendUvarint(w, s.version - s.after);
    appendVector(w, s.deps);
  }
}

// Neighbouring changes of one table and key become one row.
function appendGroup(w: ByteWriter, g: Group, sites: Refs, names: Refs): void {
  sites.append(w, g.origin);
  appendUvarint(w, g.version);
  const rows = rowsOf(g.changes);
  appendUvarint(w, rows.length);
  for (const row of rows) {
    const [head] = row;
    names.append(w, head.table);
    appendBytes(w, head.pk);
    appendUvarint(w, row.length);
    for (const cell of row) {
      names.append(w, cell.cid);
      appendValue(w, cell.val);
      appendUvarint(w, cell.colVersion);
      appendUvarint(w, cell.cl);
      appendUvarint(w, cell.seq);
      sites.append(w, cell.site);
    }
  }
}

function rowsOf(changes: readonly Change[]): [Change, ...Change[]][] {
  const rows: [Change, ...Change[]][] = [];
  for (const c of changes) {
    const row = rows.at(-1);
    if (row && row[0].table === c.table && compareBytes(row[0].pk, c.pk) === 0) row.push(c);
    else rows.push([c]);
  }
  return rows;
}

function parseChanges(p: Parser): Changes {
  const f = parseFlags(p, flagClaims | flagSpans);
  const reached = p.number("reached", 0);
  const remaining = p.number("remaining", 0);
  const groups: Group[] = [];
  let total = 0;
  for (let n = p.count("groups", MaxGroups, minGroup); n > 0; n--) {
    const g = parseGroup(p, MaxChanges - total);
    groups.push(g);
    total += g.changes.length;
  }
  const claims = f & flagClaims ? p.vector() : undefined;
  const deps = claims && p.vector();
  const spans = f & flagSpans ? parseSpans(p) : [];
  return { type: TypeChanges, reached, remaining, groups, claims, deps, spans };
}

function parseSpans(p: Parser): Span[] {
  const n = p.count("spans", MaxSpans, minSpan);
  if (n === 0) throw malformed("the list of spans is empty");
  const spans: Span[] = [];
  for (let i = 0; i < n; i++) {
    const origin = p.siteRef();
    const after = p.number("a version", 0);
    if (origin.length !== 32) throw malformed("the site of a span does not have 16 bytes");
    if (origin <= (spans.at(-1)?.origin ?? "")) {
      throw malformed("the spans are not in ascending order of their sites");
    }
    const length = p.number("the length of a span", 1);
    if (length > MaxVersion - after) throw malformed("a version is not in the range from 1 to 2^53-1");
    const deps = p.vector();
    if (deps.size > MaxSpanDeps) throw malformed(`a span depends on more than ${MaxSpanDeps} sites`);
    spans.push({ origin, after, version: after + length, deps });
  }
  return spans;
}

// Reads a group of at most `most` changes.
function parseGroup(p: Parser, most: number): Group {
  const origin = p.siteRef();
  const version = p.number("a version", 1);
  if (origin.length !== 32) throw malformed("the site of a group does not have 16 bytes");
  const rows = p.count("rows in a group", MaxChanges, minRow);
  if (rows === 0) throw malformed("a group has no row");
  const changes: Change[] = [];
  for (let i = 0; i < rows; i++) parseRow(p, changes, most);
  return { origin, version, changes };
}

function parseRow(p: Parser, changes: Change[], most: number): void {
  const table = p.nameRef();
  const pk = p.bytes();
  const last = changes.at(-1);
  if (last && last.table === table && compareBytes(last.pk, pk) === 0) {
    throw malformed("two neighbouring rows of a group have one key");
  }
  const cells = p.count("changes", most - changes.length, minCell);
  if (cells === 0) throw malformed("a row has no cell");
  for (let i = 0; i < cells; i++) {
    changes.push({
      table,
      pk,
      cid: p.nameRef(),
      val: p.value(),
      colVersion: p.int(),
      cl: p.int(),
      seq: p.int(),
      site: p.siteRef(),
      dbVersion: 0,
    });
  }
}

function appendHave(w: ByteWriter, m: Have): void {
  w.byte(
    flag(m.feed, flagHaveFeed) |
      flag(m.busy, flagHaveBusy) |
      flag(m.neighbours !== undefined, flagHaveNeighbours),
  );
  appendUvarint(w, m.applied);
  appendVector(w, m.delta);
  if (m.neighbours) appendSites(w, m.neighbours);
}

function parseHave(p: Parser): Have {
  const f = parseFlags(p, flagHaveFeed | flagHaveBusy | flagHaveNeighbours);
  return {
    type: TypeHave,
    feed: (f & flagHaveFeed) !== 0,
    busy: (f & flagHaveBusy) !== 0,
    applied: p.number("applied", 0),
    delta: p.vector(),
    neighbours: f & flagHaveNeighbours ? p.siteList("neighbours", MaxNeighbours) : undefined,
  };
}

function parseError(p: Parser): ErrorMessage {
  const code = p.uvarint();
  if (code < 1 || code > maxErrorCode) {
    throw malformed("an error code is not in the range from 1 to 65535");
  }
  return { type: TypeErrorMessage, code: Number(code), sentence: p.text("the sentence", 0, MaxSentence) };
}

function parseSchema(p: Parser): Schema {
  if (p.left >= MaxSchemaBytes) throw new ProtocolError(CodeTooLarge, "a schema has more than 4 MiB");
  const hash = p.take(SchemaHashLen);
  const generation = p.number("a generation", 0);
  if (generation > MaxGeneration) throw malformed("a generation is 2^32 or more");
  const tables: TableSchema[] = [];
  for (let n = p.count("tables", MaxSchemaTables, minTable); n > 0; n--) {
    const name = p.text("a name", 1, MaxName);
    const sql = p.text("a CREATE TABLE statement", 1, MaxSchemaSQL);
    const last = tables.at(-1);
    if (last && compareText(last.name, name) >= 0) throw malformed("the tables are not in ascending order");
    tables.push({ name, sql, columns: parseColumns(p) });
  }
  return { type: TypeSchema, hash, generation, tables };
}

function parsePrune(p: Parser): Prune {
  const prune = p.siteList("pruned sites", MaxPrunes);
  const graft = p.siteList("grafted sites", MaxPrunes);
  const pruned = new Set(prune);
  if (graft.some((site) => pruned.has(site))) {
    throw malformed("a site is pruned and grafted at the same time");
  }
  return { type: TypePrune, prune, graft };
}
