import { useStatus } from "../react/index.ts";

/** One line that says where things stand, and a bar while rows arrive. */
export function SyncState() {
  const { signal, members, synced, received, remaining, storage } = useStatus();
  const open = members.filter((m) => m.state === "open" || m.state === "suspect").length;
  const total = received + remaining;
  const busy = remaining > 0;

  return (
    <div
      className="sync"
      data-testid="sync"
      data-synced={synced}
      data-signal={signal.state}
      data-received={received}
      data-remaining={remaining}
    >
      <p className="sync-line" role="status">
        <span
          className={`dot ${open > 0 ? "open" : signal.state === "joined" ? "connecting" : "none"}`}
          aria-hidden="true"
        />
        {words(open, busy, synced, signal.state)}
        {storage === "indexeddb" && <span className="tag">slower storage</span>}
      </p>
      {busy && (
        <p className="progress">
          <progress aria-label="Changes received" value={received} max={total} />
          <span>
            {received.toLocaleString("en")} of {total.toLocaleString("en")} changes
          </span>
        </p>
      )}
    </div>
  );
}

function words(open: number, busy: boolean, synced: boolean, signal: string): string {
  if (busy) return "Receiving";
  if (open > 0) return synced ? "In sync" : "Syncing";
  if (signal === "joined") return "Waiting for peers";
  return signal === "connecting" ? "Connecting" : "Offline: your changes are kept here";
}
