import { useState } from "react";
import type { RoomLinks } from "../client/client.ts";
import { Invite } from "./invite.tsx";
import { Peers } from "./peers.tsx";
import { Problems } from "./problems.tsx";
import { SyncState } from "./sync-state.tsx";
import { Mark } from "./welcome.tsx";
import { Workspace } from "./workspace.tsx";

/** An open room. Below a CrmeshProvider. */
export function RoomPage({ links }: { links: RoomLinks }) {
  const [inviting, setInviting] = useState(false);
  return (
    <div className="page">
      <header>
        <a className="brand" href="./">
          <Mark /> crmesh
        </a>
        <SyncState />
        <button
          type="button"
          className="primary"
          data-testid="invite"
          aria-expanded={inviting}
          onClick={() => setInviting(!inviting)}
        >
          Invite
        </button>
      </header>
      {inviting && <Invite links={links} />}
      <Problems />
      <div className="columns">
        <main>
          <h1 className="visually-hidden">Room</h1>
          <Workspace />
        </main>
        <aside>
          <Peers />
        </aside>
      </div>
      <Credits />
    </div>
  );
}

/** What the licences of the sample data ask for. */
function Credits() {
  return (
    <footer>
      Sample data: cities from <a href="https://www.geonames.org/">GeoNames</a> (
      <a href="https://creativecommons.org/licenses/by/4.0/">CC BY 4.0</a>), countries from{" "}
      <a href="https://github.com/mledoze/countries">mledoze/countries</a> (
      <a href="https://opendatacommons.org/licenses/odbl/1-0/">ODbL 1.0</a>).
    </footer>
  );
}
