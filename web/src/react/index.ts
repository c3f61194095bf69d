export { CrmeshProvider, useClient } from "./context.tsx";
export type { ClientStatus, Member, Rows, Source, SqlValue } from "./source.ts";
export { type QueryState, useQuery } from "./use-query.ts";
export { useStatus } from "./use-status.ts";
