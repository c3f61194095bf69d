import { type ClientStatus, useStatus } from "../react/index.ts";
import { sentence } from "./failures.ts";

/** Reasons that the page lists; the status has more. */
const shownReasons = 3;

/** The lines that are no warning. */
const notes: ReadonlySet<string> = new Set(["renewed", "reader", "storage"]);

function parkedText({ changes, tables, more }: ClientStatus["parked"]): string {
  const reasons = tables.slice(0, shownReasons).map((t) => `${t.table}: ${t.reason} (${t.changes})`);
  const rest = tables.length - reasons.length + more;
  if (rest > 0) reasons.push(`and ${rest} more`);
  const what = changes === 1 ? "1 change of others does" : `${changes} changes of others do`;
  return `${what} not fit the tables here and is kept until they do. ${reasons.join("; ")}`;
}

/** What is wrong now, each with what it means for the person. Nothing is shown while all is well. */
export function Problems() {
  const { signal, members, parked, problem, renewals, writer, storage } = useStatus();
  const linked = members.some((m) => m.state === "open");
  const failed = members.filter((m) => m.state === "failed");
  const lines: { id: string; text: string }[] = [];

  if (problem !== undefined) lines.push({ id: "problem", text: sentence(problem) });
  if (signal.error !== undefined && signal.state !== "joined") {
    const rest = linked
      ? "Open links go on without it."
      : "Your data is here all the same, and changes are kept.";
    lines.push({ id: "signal", text: `${sentence(signal.error)} ${rest}` });
  }
  if (failed.length > 0 && !linked) {
    lines.push({
      id: "peer",
      text: "No peer can be reached: a firewall or a strict network may stand between. It is tried again by itself.",
    });
  }
  if (parked.changes > 0) lines.push({ id: "parked", text: parkedText(parked) });
  if (renewals > 0) {
    lines.push({
      id: "renewed",
      text: "This browser's copy of the database had been put back to an older state, or was copied. It goes on under a new id. Nothing that it held is lost, and what came since is fetched from the others.",
    });
  }
  if (!writer)
    lines.push({ id: "reader", text: "You joined by a read link: you see everything and change nothing." });
  if (storage === "indexeddb") {
    lines.push({
      id: "storage",
      text: "This browser keeps its fast storage (OPFS) from the page; a slower one is used. Nothing is lost by it.",
    });
  }

  return (
    <ul className="problems" aria-live="polite">
      {lines.map(({ id, text }) => (
        <li key={id} className={notes.has(id) ? "note" : "warning"} data-testid={`problem-${id}`}>
          {text}
        </li>
      ))}
    </ul>
  );
}
