// Messages as the golden vectors describe them: fields in camelCase, integers as decimal strings, bytes and sites as hex.

import { toHex } from "../../changeset/change.ts";
import { type Digest, digestBytes, type Part, type Sum } from "../../changeset/digest.ts";
import { KindBlob, KindInteger, KindReal, KindText, type Value } from "../../changeset/value.ts";
import {
  type Message,
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
} from "../message.ts";
import type { Vector } from "../vector.ts";

/** The description of `m`: JSON's plain objects. */
export function describeMessage(m: Message): object {
  switch (m.type) {
    case TypeHello:
      return {
        type: "hello",
        site: m.site,
        writer: m.writer,
        feed: m.feed,
        busy: m.busy,
        proof: toHex(m.proof),
        schemaHash: toHex(m.schemaHash),
        maxMessage: String(m.maxMessage),
        resume: String(m.resume),
        neighbours: m.neighbours,
        vector: describeVector(m.vector),
      };
    case TypeChanges:
      return {
        type: "changes",
        reached: String(m.reached),
        remaining: String(m.remaining),
        groups: m.groups.map((g) => ({
          origin: g.origin,
          version: String(g.version),
          changes: g.changes.map((c) => ({
            table: c.table,
            pk: toHex(c.pk),
            cid: c.cid,
            val: describeValue(c.val),
            colVersion: String(c.colVersion),
            cl: String(c.cl),
            seq: String(c.seq),
            site: c.site,
          })),
        })),
        claims: describeVector(m.claims),
        deps: describeVector(m.deps),
        spans: m.spans.map((s) => ({
          origin: s.origin,
          after: String(s.after),
          version: String(s.version),
          deps: describeVector(s.deps),
        })),
      };
    case TypeHave:
      return {
        type: "have",
        feed: m.feed,
        busy: m.busy,
        applied: String(m.applied),
        delta: describeVector(m.delta),
        hasNeighbours: m.neighbours !== undefined,
        neighbours: m.neighbours ?? [],
      };
    case TypePrune:
      return { type: "prune", prune: m.prune, graft: m.graft };
    case TypeErrorMessage:
      return { type: "error", code: m.code, sentence: m.sentence };
    case TypeBye:
      return { type: "bye", sentence: m.sentence };
    case TypeRelay:
      return {
        type: "relay",
        hops: m.hops,
        from: toHex(m.from),
        to: toHex(m.to),
        sealed: toHex(m.sealed),
      };
    case TypeNeed:
      return { type: "need", needed: m.needed };
    case TypeSchema:
      return {
        type: "schema",
        hash: toHex(m.hash),
        generation: String(m.generation),
        tables: m.tables.map(({ name, sql, columns }) => ({
          name,
          sql,
          columns: columns.map((c) => ({
            name: c.name,
            type: c.type,
            notNull: c.notNull,
            default: c.defaultValue ?? null,
            key: c.key,
          })),
        })),
      };
    case TypeDigestRequest:
      return {
        type: "digestRequest",
        id: String(m.id),
        table: m.table,
        prefixes: m.prefixes.map((p) => ({ place: p.padEnd(32, "0"), len: p.length })),
      };
    case TypeDigestAnswer:
      return {
        type: "digestAnswer",
        id: String(m.id),
        kind: m.kind,
        vector: describeVector(m.vector),
        tables: m.tables.map((t) => ({
          table: t.table,
          columns: describeDigest(t.columns),
          sum: describeSum(t.sum),
          stray: String(t.stray),
        })),
        parts: m.parts.map(describePart),
      };
    case TypeResend:
      return { type: "resend", table: m.table, places: m.places };
  }
}

function describeDigest(d: Digest): string {
  return toHex(digestBytes(d));
}

function describeSum({ count, digest }: Sum): object {
  return { count: String(count), digest: describeDigest(digest) };
}

function describePart(p: Part): object {
  if ("children" in p) return { children: p.children.map(describeSum) };
  return {
    rows: p.rows.map((r) => ({
      place: r.place,
      key: toHex(r.key ?? new Uint8Array(0)),
      cl: String(r.cl),
      versions: String(r.versions),
      digest: describeDigest(r.digest),
    })),
  };
}

function describeVector(v: Vector | undefined): object | null {
  return v ? Object.fromEntries([...v].map(([site, version]) => [site, String(version)])) : null;
}

function describeValue(v: Value): object {
  switch (v.kind) {
    case KindInteger:
      return { int: String(v.int) };
    case KindReal: {
      const bits = new DataView(new ArrayBuffer(8));
      bits.setFloat64(0, v.real);
      return { real: bits.getBigUint64(0).toString(16).padStart(16, "0") };
    }
    case KindText:
      return { text: toHex(v.bytes) };
    case KindBlob:
      return { blob: toHex(v.bytes) };
    default:
      return { null: true };
  }
}
