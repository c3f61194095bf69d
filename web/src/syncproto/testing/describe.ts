// Messages as the golden vectors describe them: fields in camelCase, integers as decimal strings, bytes and sites as hex.

import { toHex } from "../../changeset/change.ts";
import { KindBlob, KindInteger, KindReal, KindText, type Value } from "../../changeset/value.ts";
import {
  type Message,
  TypeBye,
  TypeChanges,
  TypeErrorMessage,
  TypeHave,
  TypeHello,
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
    case TypeErrorMessage:
      return { type: "error", code: m.code, sentence: m.sentence };
    case TypeBye:
      return { type: "bye", sentence: m.sentence };
    case TypeSchema:
      return {
        type: "schema",
        hash: toHex(m.hash),
        tables: m.tables.map(({ name, sql }) => ({ name, sql })),
      };
  }
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
