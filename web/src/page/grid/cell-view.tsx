import type { SqlValue } from "../../react/index.ts";
import type { Cell } from "../tables.ts";
import { hex, kindOf, realText, sizeText } from "../values.ts";

/** How many bytes of a blob are shown. */
const BLOB_SHOWN = 12;

/** A value so that its storage class can be seen: NULL and blobs as marks, numbers to the right, controls as symbols. */
export function CellView({ cell }: { cell: Cell }) {
  const { value, size, cut } = cell;
  if (value === null) return <span className="null">NULL</span>;
  if (value instanceof Uint8Array) {
    return (
      <span className="blob">
        <span className="blob-size">blob {sizeText(size)}</span> {hex(value.subarray(0, BLOB_SHOWN))}
        {size > BLOB_SHOWN && "…"}
      </span>
    );
  }
  if (typeof value === "bigint") return <span className="number">{String(value)}</span>;
  if (typeof value === "number") return <span className="number">{realText(value)}</span>;
  if (value === "") return <span className="empty">empty text</span>;
  return (
    <>
      {visible(value)}
      {cut && <span className="blob-size"> … {sizeText(size)}</span>}
    </>
  );
}

/** The class of a grid cell, which sets its alignment. */
export function cellClass(value: SqlValue): string {
  const kind = kindOf(value);
  return kind === "INTEGER" || kind === "REAL" ? "cell numeric" : "cell";
}

/** Control characters as their pictures (U+2400 and up), so that a NUL is seen and not swallowed. */
function visible(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it is about
  return text.replace(/[\0-\x1f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)));
}

/** A value as plain text, for labels and results. */
export function plain(value: SqlValue): string {
  if (value === null) return "NULL";
  if (value instanceof Uint8Array) return `x'${hex(value)}'`;
  return typeof value === "number" ? realText(value) : String(value);
}
