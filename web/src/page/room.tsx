import { useEffect, useState } from "react";
import type { Client } from "../client/client.ts";
import { CrmeshProvider, type Source } from "../react/index.ts";
import { LinkError } from "../signaling/link.ts";
import { FailureView } from "./failure-view.tsx";
import { describe, environmentFailure, type Failure } from "./failures.ts";
import { enterRoom } from "./location.ts";
import { Opening } from "./opening.tsx";
import { RoomPage } from "./room-page.tsx";
import { Welcome } from "./welcome.tsx";

/** Opens the room of a link; rejects if the link or the browser does not allow it. What it returns is closed by the page. */
export type Opener = (link: string) => Promise<Pick<Client, keyof Source | "links" | "close">>;

type OpenRoom = Awaited<ReturnType<Opener>>;

declare global {
  interface Window {
    /** The client of the open room, for the browser's console. */
    crmesh?: Source;
  }
}

type State =
  | { readonly room: OpenRoom }
  | { readonly failure: Failure }
  | { readonly linkFault: string }
  | undefined;

// One database is open at a time: the next one waits until the last is closed.
let queue: Promise<unknown> = Promise.resolve();

function enqueue(task: () => Promise<void>): void {
  queue = queue.then(task, task);
}

/** Opens a room for as long as it is shown. */
export function Room({ link, open }: { link: string; open: Opener }) {
  const [state, setState] = useState<State>();
  const [attempt, setAttempt] = useState(0);

  useEffect(() => {
    let over = false;
    let room: OpenRoom | undefined;
    setState(undefined);
    enqueue(async () => {
      if (over) return;
      try {
        const failure = environmentFailure();
        if (failure !== undefined) return setState({ failure });
        room = await open(link);
        if (over) return;
        window.crmesh = room;
        setState({ room });
      } catch (error) {
        if (over) return;
        setState(error instanceof LinkError ? { linkFault: error.message } : { failure: describe(error) });
      }
    });
    return () => {
      over = true;
      delete window.crmesh;
      enqueue(async () => room?.close());
    };
  }, [link, open, attempt]);

  if (state === undefined) return <Opening />;
  // A wrong link is mended where links are given.
  if ("linkFault" in state) return <Welcome error={state.linkFault} enter={enterRoom} />;
  if ("failure" in state) {
    return (
      <main className="welcome">
        <FailureView failure={state.failure} again={() => setAttempt(attempt + 1)} />
        <p className="hint">
          <a href="./">Go to the start</a>
        </p>
      </main>
    );
  }
  return (
    <CrmeshProvider client={state.room}>
      <RoomPage links={state.room.links} />
    </CrmeshProvider>
  );
}
