import { type FormEvent, useId, useState } from "react";
import { newRoom, parseLink, writeLink } from "../signaling/link.ts";
import { FailureView } from "./failure-view.tsx";
import { environmentFailure, sentence } from "./failures.ts";
import { pageBase } from "./location.ts";

/** The way in: make a room, or join one by its link. Both end in `enter` with a link. */
export function Welcome({ error, enter }: { error?: string | undefined; enter(link: string): void }) {
  const [text, setText] = useState("");
  const [fault, setFault] = useState(error);
  const id = useId();
  const failure = environmentFailure();

  async function join(event: FormEvent) {
    event.preventDefault();
    try {
      await parseLink(text);
      enter(text.trim());
    } catch (err) {
      setFault(err instanceof Error ? err.message : String(err));
    }
  }

  async function create() {
    try {
      const link = writeLink(await newRoom(), pageBase());
      if (link !== undefined) enter(link);
    } catch (err) {
      setFault(err instanceof Error ? err.message : String(err));
    }
  }

  return (
    <main className="welcome">
      <h1>
        <Mark /> crmesh
      </h1>
      <p className="lead">
        A SQLite database that you share with the people you invite, browser to browser. No server ever sees a
        row.
      </p>
      {failure ? (
        <FailureView failure={failure} />
      ) : (
        <div className="ways">
          <section className="card">
            <h2>Start</h2>
            <p>Make a new room. Its link is the key to it: whoever has the link is in.</p>
            <button type="button" className="primary" data-testid="create-room" onClick={() => void create()}>
              Create a room
            </button>
          </section>
          <form className="card" onSubmit={(event) => void join(event)}>
            <h2>Join</h2>
            <label htmlFor={id}>Paste the link that somebody gave you.</label>
            <input
              id={id}
              data-testid="join-link"
              value={text}
              placeholder="https://…/#…"
              autoComplete="off"
              spellCheck={false}
              aria-invalid={fault !== undefined}
              aria-describedby={`${id}e`}
              onChange={(event) => {
                setText(event.target.value);
                setFault(undefined);
              }}
            />
            <button type="submit" data-testid="join-room">
              Join
            </button>
            <p id={`${id}e`} className="form-error" role="alert" data-testid="join-error">
              {fault && sentence(fault)}
            </p>
          </form>
        </div>
      )}
    </main>
  );
}

/** The sign of the mesh: three peers, each linked with each. */
export function Mark() {
  return (
    <svg className="mark" viewBox="0 0 32 32" aria-hidden="true">
      <path d="M16 6 6 25h20Z" fill="none" stroke="currentColor" strokeWidth="2.5" strokeLinejoin="round" />
      <circle cx="16" cy="6" r="4" />
      <circle cx="6" cy="25" r="4" />
      <circle cx="26" cy="25" r="4" />
    </svg>
  );
}
