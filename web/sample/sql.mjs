// Rows as SQL text.

/** Rows to one INSERT: few enough that a statement stays far below SQLite's length limit (1 MB by default). */
const ROWS_PER_STATEMENT = 500;

/**
 * One value as an SQL literal. Strings become TEXT, whole numbers INTEGER, `{real: n}` REAL, null NULL.
 * A string with a NUL, or a number that is neither, is an error: no literal holds it unharmed.
 */
export function literal(value) {
  if (value === null) return "NULL";
  if (typeof value === "string") {
    if (value.includes("\0")) throw new Error(`a NUL in ${JSON.stringify(value)} has no SQL literal`);
    return `'${value.replaceAll("'", "''")}'`;
  }
  if (Number.isSafeInteger(value)) return String(value);
  if (typeof value === "object" && Number.isFinite(value.real)) {
    const text = String(value.real);
    return /[.e]/.test(text) ? text : `${text}.0`;
  }
  throw new Error(`${String(value)} is no value of the sample`);
}

/** INSERT statements for the rows, of at most ROWS_PER_STATEMENT rows each, a row a line. */
export function statements(table, rows) {
  let out = "";
  for (let i = 0; i < rows.length; i += ROWS_PER_STATEMENT) {
    const tuples = rows.slice(i, i + ROWS_PER_STATEMENT).map((row) => `(${row.map(literal).join(",")})`);
    out += `INSERT INTO ${table} VALUES\n${tuples.join(",\n")};\n`;
  }
  return out;
}
