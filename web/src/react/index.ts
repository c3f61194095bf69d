export { CrmeshProvider, useClient } from "./context.tsx";
export type { MemberView, Rows, Source, SqlValue, StatusView } from "./source.ts";
export { type QueryState, useQuery } from "./use-query.ts";
export { useStatus } from "./use-status.ts";
