import { useEffect, useRef } from "react";
import { type Member, useStatus } from "../react/index.ts";
import { sentence } from "./failures.ts";

/** How many members are listed at most; of a large room, most are linked over others. */
const shownMembers = 40;

/** Members whose links matter come first. */
const order: Member["state"][] = ["open", "suspect", "connecting", "failed", "none", "unlinked"];

const stateWords: Record<Member["state"], string> = {
  unlinked: "linked over others",
  none: "no link yet",
  connecting: "connecting",
  open: "linked",
  suspect: "silent for a while",
  failed: "no connection",
};

/** The members of the room, and how the link to each stands. */
export function Peers() {
  const { members, leader, writer } = useStatus();
  const open = members.filter((m) => m.state === "open").length;
  const sorted = [...members].sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state));
  const more = sorted.length - shownMembers;
  const box = useRef<HTMLDetailsElement>(null);

  // Beside the tables there is room for the list; above them, on a phone, it starts as one line.
  useEffect(() => {
    if (box.current !== null) box.current.open = matchMedia("(min-width: 900px)").matches;
  }, []);

  return (
    <details className="card peers" ref={box} data-testid="peers">
      <summary>
        <h2>Peers</h2>
        <span className="count" data-testid="peer-count" data-members={members.length} data-open={open}>
          {members.length + 1} here, {open} linked
        </span>
      </summary>
      <ul>
        <li className="peer" data-testid="self">
          <span className="dot open" aria-hidden="true" />
          <span className="peer-name">You</span>
          <span className="peer-state">
            {writer ? "read and write" : "read only"}
            {leader ? "" : ", through another tab"}
          </span>
        </li>
        {sorted.slice(0, shownMembers).map((member) => (
          <Peer key={member.peer} member={member} />
        ))}
        {more > 0 && (
          <li className="hint" data-testid="more-peers">
            and {more} more
          </li>
        )}
      </ul>
      {members.length === 0 && (
        <p className="hint">
          Nobody else is here. Send a link to somebody; your data is safe in this browser until then.
        </p>
      )}
    </details>
  );
}

function Peer({ member }: { member: Member }) {
  const name = member.name || `peer ${member.peer.slice(0, 6)}`;
  const stage = member.state === "open" ? roundTrip(member.roundTrip) : member.stage;
  return (
    <li className="peer" data-testid="peer" data-state={member.state} data-peer={member.peer}>
      <span className={`dot ${member.state}`} aria-hidden="true" />
      <span className="peer-name">
        {name}
        {member.replica && <span className="tag">always on</span>}
      </span>
      <span className="peer-state">
        {stateWords[member.state]}
        {stage && `, ${stage}`}
      </span>
      {member.error !== undefined && member.state !== "open" && (
        <p className="peer-error">{sentence(member.error)}</p>
      )}
      {member.schemaDifference.length > 0 && (
        <details className="peer-error" data-testid="schema-difference">
          <summary>has other tables than this browser</summary>
          <ul>
            {member.schemaDifference.map((difference) => (
              <li key={difference}>{difference}</li>
            ))}
          </ul>
        </details>
      )}
    </li>
  );
}

function roundTrip(ms: number | undefined): string {
  if (ms === undefined) return "";
  return ms < 1 ? "under 1 ms" : `${Math.round(ms)} ms`;
}
