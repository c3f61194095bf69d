import { useSyncExternalStore } from "react";
import { useClient } from "./context.tsx";
import type { ClientStatus } from "./source.ts";

/** The client's status: members, links, progress. Renders again whenever it changes. */
export function useStatus(): ClientStatus {
  const client = useClient();
  return useSyncExternalStore(
    (listener) => client.subscribe(listener),
    () => client.status(),
  );
}
