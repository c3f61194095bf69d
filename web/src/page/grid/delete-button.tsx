import { useState } from "react";

interface Props {
  readonly cell: string;
  readonly focusable: boolean;
  readonly name: string;
  onFocus(): void;
  remove(): Promise<void>;
}

/** Deletes a row at the second press: the first one asks. Leaving it takes the question back. */
export function DeleteButton({ cell, focusable, name, onFocus, remove }: Props) {
  const [asked, setAsked] = useState(false);
  return (
    <button
      type="button"
      className={asked ? "delete danger" : "delete"}
      data-cell={cell}
      data-testid="delete-row"
      tabIndex={focusable ? 0 : -1}
      aria-label={asked ? `Really delete row ${name}` : `Delete row ${name}`}
      onFocus={onFocus}
      onBlur={() => setAsked(false)}
      onClick={() => {
        setAsked(!asked);
        if (asked) void remove();
      }}
    >
      {asked ? "Delete?" : "×"}
    </button>
  );
}
