// Schemas as other databases have to know them: what their hash is of, how two differ, and which columns may be added.

import { compareText } from "./value.ts";

/** A column of a CRR; generated columns are not among them. */
export interface Column {
  readonly name: string;
  /** As declared; empty: none. */
  readonly type: string;
  readonly notNull: boolean;
  /** The default's expression in SQL; undefined: none. */
  readonly defaultValue: string | undefined;
  /** Its place in the primary key, from 1; 0: not in it. */
  readonly key: number;
}

/** A CRR: its name, its CREATE TABLE statement, and its columns in their order. */
export interface TableSchema {
  readonly name: string;
  readonly sql: string;
  readonly columns: readonly Column[];
}

/** How many sentences schemaDifferences returns; one more says how many there are besides. */
export const MaxDifferences = 50;

/** Characters of a name, type or default that a sentence holds. */
const maxQuoted = 60;

/** The text whose SHA-256 is the schema hash of docs/PROTOCOL.md, of at least one table. */
export function schemaText(tables: readonly Pick<TableSchema, "name" | "columns">[]): string {
  let text = "";
  for (const t of [...tables].sort(byName)) {
    text += `${t.name}\0`;
    for (const c of [...t.columns].sort(byName)) {
      text += `${c.name}\0${plainType(c)}\0${c.notNull ? 1 : 0}\0${plainDefault(c)}\0${c.key}\0`;
    }
    text += "\n";
  }
  return text;
}

function byName(a: { readonly name: string }, b: { readonly name: string }): number {
  return compareText(a.name, b.name);
}

// The type in upper case, ASCII letters only: SQLite does not heed the case of these.
function plainType(c: Column): string {
  return plainSQL(c.type).replace(/[a-z]/g, (letter) => letter.toUpperCase());
}

// The default's expression, empty for none. DEFAULT NULL is none.
function plainDefault(c: Column): string {
  const text = plainSQL(c.defaultValue ?? "");
  return /^null$/i.test(text) ? "" : text;
}

// Quoted text, which is kept; and comments and white space, which become one blank.
const sqlPiece =
  /'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|(?:[ \t\n\f\r]|--[^\n]*(?:\n|$)|\/\*[\s\S]*?(?:\*\/|$))+/g;

function plainSQL(sql: string): string {
  return sql
    .replace(sqlPiece, (piece) => ("'\"`[".includes(piece[0] as string) ? piece : " "))
    .replace(/^ +| +$/g, "");
}

/**
 * Says in sentences without a full stop how two schemas differ that have two hashes, in order of their tables and columns,
 * such as "note: column tags is missing here". There are at most MaxDifferences, and one more.
 */
export function schemaDifferences(
  here: readonly Pick<TableSchema, "name" | "columns">[],
  there: readonly Pick<TableSchema, "name" | "columns">[],
): string[] {
  const all: string[] = [];
  for (const [name, a, b] of pairs(here, there)) {
    if (!a) all.push(`${quoted(name)}: table is missing here`);
    else if (!b) all.push(`${quoted(name)}: table is missing there`);
    else tableDifferences(name, a.columns, b.columns, all);
  }
  const more = all.length - MaxDifferences;
  return more > 0 ? [...all.slice(0, MaxDifferences), `and ${more} more`] : all;
}

function tableDifferences(
  table: string,
  here: readonly Column[],
  there: readonly Column[],
  all: string[],
): void {
  for (const [name, a, b] of pairs(here, there)) {
    const add = (what: string) => all.push(`${quoted(table)}: column ${quoted(name)} ${what}`);
    if (!a || !b) {
      add(a ? "is missing there" : "is missing here");
      continue;
    }
    const type = (c: Column) => (plainType(c) ? `the type ${quoted(plainType(c))}` : "no type");
    const fallback = (c: Column) =>
      plainDefault(c) ? `the default ${quoted(plainDefault(c))}` : "no default";
    const nullness = (c: Column) => (c.notNull ? "is NOT NULL" : "may be NULL");
    const key = (c: Column) =>
      c.key === 0 ? "no part of the primary key" : `part ${c.key} of the primary key`;
    if (plainType(a) !== plainType(b)) add(`has ${type(a)} here and ${type(b)} there`);
    if (a.notNull !== b.notNull) add(`${nullness(a)} here and ${nullness(b)} there`);
    if (plainDefault(a) !== plainDefault(b)) add(`has ${fallback(a)} here and ${fallback(b)} there`);
    if (a.key !== b.key) add(`is ${key(a)} here and ${key(b)} there`);
  }
}

// The names in either list, ascending, with what has them.
function pairs<T extends { readonly name: string }>(
  here: readonly T[],
  there: readonly T[],
): [string, T | undefined, T | undefined][] {
  const ours = new Map(here.map((x) => [x.name, x]));
  const theirs = new Map(there.map((x) => [x.name, x]));
  const names = [...new Set([...ours.keys(), ...theirs.keys()])].sort(compareText);
  return names.map((name) => [name, ours.get(name), theirs.get(name)]);
}

function quoted(s: string): string {
  const characters = [...s];
  return characters.length > maxQuoted ? `${characters.slice(0, maxQuoted).join("")}...` : s;
}

/** The columns of `there` that `here` lacks, in their order. */
export function missingColumns(here: readonly Column[], there: readonly Column[]): Column[] {
  const ours = new Set(here.map((c) => c.name));
  return there.filter((c) => !ours.has(c.name));
}

// What a column's definition may hold to be added to a table because a peer has it: a type of words and numbers, and a
// default that is one literal, so that nothing of it is ever run.
const addableType = /^[A-Za-z0-9_ ]{0,100}(?:\([0-9+\-., ]{0,100}\))?$/;
const addableDefault =
  /^(?:[+-]? ?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]? ?0x[0-9a-f]+|'(?:[^'\0]|'')*'|x'(?:[0-9a-f]{2})*'|NULL|TRUE|FALSE)$/i;

/** Why the column cannot be added to a table that has rows, without a full stop; undefined: it can. */
export function whyNotAddable(c: Column): string | undefined {
  if (c.name === "" || c.name.includes("\0")) return "its name is empty or holds a NUL";
  if (c.key > 0) return "it is part of the primary key";
  if (c.notNull && plainDefault(c) === "") return "it is NOT NULL and has no default";
  if (!addableType.test(plainSQL(c.type))) return "its type is not of words and numbers";
  if (c.defaultValue !== undefined && !addableDefault.test(plainSQL(c.defaultValue))) {
    return "its default is no single literal";
  }
  return undefined;
}

/** The column as ALTER TABLE ADD COLUMN takes it. For columns that may be added. */
export function columnDefinition(c: Column): string {
  const type = plainSQL(c.type);
  return [
    `"${c.name.replaceAll('"', '""')}"`,
    ...(type ? [type] : []),
    ...(c.notNull ? ["NOT NULL"] : []),
    ...(c.defaultValue !== undefined ? [`DEFAULT ${plainSQL(c.defaultValue)}`] : []),
  ].join(" ");
}
