import { useStatus } from "../react/index.ts";
import { sentence } from "./welcome.tsx";

/** What is wrong now, each with what it means for the person. Nothing is shown while all is well. */
export function Problems() {
  const { signal, members, problem, writer, storage } = useStatus();
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
        <li
          key={id}
          className={id === "reader" || id === "storage" ? "note" : "warning"}
          data-testid={`problem-${id}`}
        >
          {text}
        </li>
      ))}
    </ul>
  );
}
