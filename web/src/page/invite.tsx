import { useId, useRef, useState } from "react";
import type { RoomLinks } from "../client/client.ts";

/** The two links of a room, to be given to others. A reader has only the second. */
export function Invite({ links }: { links: RoomLinks }) {
  const { write, read } = links;
  return (
    <section className="card invite" aria-label="Invite">
      {write !== undefined && (
        <LinkField
          testid="write-link"
          label="Write link"
          help="Whoever has it can read and change everything."
          link={write}
        />
      )}
      <LinkField
        testid="read-link"
        label="Read link"
        help="Whoever has it can read everything and change nothing."
        link={read}
      />
    </section>
  );
}

function LinkField(props: { testid: string; label: string; help: string; link: string }) {
  const [said, setSaid] = useState("");
  const field = useRef<HTMLInputElement>(null);
  const id = useId();

  async function copy() {
    field.current?.select();
    try {
      await navigator.clipboard.writeText(props.link);
      setSaid("Copied");
    } catch {
      setSaid("Selected: copy it with Ctrl+C");
    }
  }

  return (
    <div className="link-field">
      <label htmlFor={id}>{props.label}</label>
      <div className="link-row">
        <input
          id={id}
          ref={field}
          readOnly
          value={props.link}
          data-testid={props.testid}
          aria-describedby={`${id}h`}
          onFocus={(event) => event.target.select()}
        />
        <button
          type="button"
          onClick={() => void copy()}
          aria-label={`Copy the ${props.label.toLowerCase()}`}
        >
          Copy
        </button>
      </div>
      <p id={`${id}h`} className="hint">
        {props.help} <output>{said}</output>
      </p>
    </div>
  );
}
