import { type KeyboardEvent, useEffect, useId, useRef, useState } from "react";
import type { SqlValue } from "../../react/index.ts";
import { type Kind, kindOf, kindOfColumn, kinds, parseValue, sameValue, toText } from "../values.ts";

interface Props {
  readonly label: string;
  readonly declared: string;
  readonly value: SqlValue;
  /** Stores the new value; what it rejects with is shown, and the editor stays open. */
  save(value: SqlValue): Promise<void>;
  /** The editor is done: saved, cancelled, or left without a change. */
  close(refocus: boolean): void;
}

/**
 * Edits one value in place. Its storage class stays what it was unless another is chosen. Enter saves, Shift+Enter
 * makes a new line, Escape cancels, leaving saves.
 */
export function CellEditor({ label, declared, value, save, close }: Props) {
  const [kind, setKind] = useState<Kind>(() => (value === null ? kindOfColumn(declared) : kindOf(value)));
  const [text, setText] = useState(() => toText(value, kindOf(value)));
  const [touched, setTouched] = useState(false);
  const [error, setError] = useState<string>();
  const [saving, setSaving] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const field = useRef<HTMLTextAreaElement>(null);
  const errorID = useId();

  useEffect(() => {
    field.current?.focus();
    field.current?.select();
  }, []);

  async function finish(refocus: boolean) {
    if (saving) return;
    // A NULL that was opened and left alone stays NULL, though its editor offers the column's own kind.
    if (!touched) return close(refocus);
    const parsed = parseValue(text, kind);
    if ("error" in parsed) return setError(parsed.error);
    if (sameValue(parsed.value, value)) return close(refocus);
    setSaving(true);
    try {
      await save(parsed.value);
      close(refocus);
    } catch (err) {
      setError(err instanceof Error ? err.message : String(err));
      setSaving(false);
    }
  }

  function onKeyDown(event: KeyboardEvent) {
    // The grid behind must not take the editor's arrow keys for its own.
    event.stopPropagation();
    if (event.key === "Escape") {
      event.preventDefault();
      close(true);
    } else if (event.key === "Enter" && !event.shiftKey && !event.nativeEvent.isComposing) {
      event.preventDefault();
      void finish(true);
    }
  }

  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: the keys belong to the two fields inside, wherever focus is
    <div
      className="editor"
      ref={box}
      onKeyDown={onKeyDown}
      onBlur={(event) => {
        if (!box.current?.contains(event.relatedTarget)) void finish(false);
      }}
    >
      <textarea
        ref={field}
        data-testid="cell-input"
        aria-label={label}
        aria-invalid={error !== undefined}
        aria-describedby={error === undefined ? undefined : errorID}
        rows={Math.min(6, text.split("\n").length)}
        value={kind === "NULL" ? "" : text}
        readOnly={kind === "NULL"}
        placeholder={kind === "NULL" ? "NULL" : ""}
        spellCheck={false}
        onChange={(event) => {
          setText(event.target.value);
          setTouched(true);
          setError(undefined);
        }}
      />
      <select
        aria-label={`Type of ${label}`}
        data-testid="cell-kind"
        value={kind}
        onChange={(event) => {
          setKind(event.target.value as Kind);
          setTouched(true);
          setError(undefined);
        }}
      >
        {kinds.map((k) => (
          <option key={k}>{k}</option>
        ))}
      </select>
      {error !== undefined && (
        <p className="editor-error" id={errorID} role="alert">
          {error}
        </p>
      )}
    </div>
  );
}
