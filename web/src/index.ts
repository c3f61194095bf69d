// @crmesh/client: SQLite databases in browsers that sync with each other and with Go peers, directly.

export {
  type Client,
  createRoom,
  type ExecResult,
  type OpenOptions,
  open,
  type QueryResult,
  type RoomLinks,
} from "./client/client.ts";
export type { ClientStatus, Member } from "./client/status.ts";
export type { SqlValue } from "./client/values.ts";
export { LinkError, type LinkFault } from "./signaling/link.ts";
export type { AcceptSchema, Parked, ParkedTable } from "./worker/store.ts";
