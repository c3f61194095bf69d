// The little of SQL's syntax that is needed to tell what kind of statement a text starts with.

/** Whitespace, comments and empty statements. */
const blank = /(?:[\s;]|--[^\n]*(?:\n|$)|\/\*[\s\S]*?(?:\*\/|$))*/y;
const token =
  /[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|'(?:[^']|'')*'|[\s\S]/y;

/** The first `n` tokens of `sql`, or fewer at its end: words and quoted names whole, anything else a character each. */
export function leadingTokens(sql: string, n: number): string[] {
  const tokens: string[] = [];
  let at = 0;
  while (tokens.length < n) {
    blank.lastIndex = at;
    blank.exec(sql);
    token.lastIndex = blank.lastIndex;
    const match = token.exec(sql);
    if (match === null) break;
    tokens.push(match[0]);
    at = token.lastIndex;
  }
  return tokens;
}

/** The first word of `sql` in upper case; empty where there is none. */
export function leadingWord(sql: string): string {
  return leadingTokens(sql, 1)[0]?.toUpperCase() ?? "";
}

/** The name that an identifier token stands for, its quotes removed. */
export function identifierName(tokenText: string): string {
  const quote = tokenText[0];
  if (quote === "[") return tokenText.slice(1, -1);
  if (quote === '"' || quote === "`" || quote === "'") {
    return tokenText.slice(1, -1).replaceAll(quote + quote, quote);
  }
  return tokenText;
}
