import { createContext, type ReactNode, useContext } from "react";
import type { Source } from "./source.ts";

const Context = createContext<Source | undefined>(undefined);

/** Gives the hooks below it their client. Whoever opened the client closes it; this does not. */
export function CrmeshProvider({ client, children }: { client: Source; children: ReactNode }) {
  return <Context value={client}>{children}</Context>;
}

/** The client of the nearest CrmeshProvider; throws where there is none. */
export function useClient(): Source {
  const client = useContext(Context);
  if (client === undefined) throw new Error("useClient was called outside of a CrmeshProvider");
  return client;
}
