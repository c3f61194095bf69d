// What the hooks and the page need of a client, so that a test can stand in for it.

import type { Client, QueryResult } from "../client/client.ts";
import type { ClientStatus, Member } from "../client/status.ts";
import type { SqlValue } from "../client/values.ts";

export type { ClientStatus, Member, SqlValue };

/** Rows of a query, in order. */
export type Rows = QueryResult;

/** A room's database as the hooks use it. */
export type Source = Pick<Client, "exec" | "query" | "onChange" | "status" | "subscribe">;
