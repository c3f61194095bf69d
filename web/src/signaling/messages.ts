// The JSON messages on the signaling WebSocket: those that a client sends, and those that it receives.

import { isID, type PeerID, type RoomID } from "./id.ts";
import { MaxMembers, MaxName, MaxSealed, MaxToken } from "./limits.ts";
import { asObject, type Fields, has, integerOf, parseText, text, utf8Length } from "./object.ts";

/** What a member tells the others about itself through the server, which can read it. */
export interface Meta {
  /** Always on: prefer me for links. */
  readonly replica: boolean;
  /** Joined with the read link, and has nothing that others may take from it. */
  readonly reader: boolean;
  /** For people: at most `MaxName` bytes, no control characters. */
  readonly name: string;
}

/** One member of a room. */
export interface Member {
  readonly peer: PeerID;
  readonly meta: Meta;
}

/** An entry of the iceServers of `new RTCPeerConnection`. */
export interface ICEServer {
  readonly urls: string[];
  readonly username?: string;
  readonly credential?: string;
}

/**
 * A message from a client. `join` comes first, and once; its token is that of an earlier `joined`, its admission the join
 * token, for servers that ask for one.
 */
export type ClientMessage =
  | {
      readonly type: "join";
      readonly room: RoomID;
      readonly peer: PeerID;
      readonly token?: string;
      readonly admission?: string;
      readonly meta: Meta;
    }
  | { readonly type: "signal"; readonly to: PeerID; readonly sealed: string }
  | { readonly type: "leave" }
  | { readonly type: "ping" };

/** A message from the server. `ttl`: seconds that the credentials last, 0 for ever. `retryAfter`, `within`: seconds. */
export type ServerMessage =
  | {
      readonly type: "joined";
      readonly peer: PeerID;
      readonly token: string;
      readonly members: readonly Member[];
      readonly iceServers: readonly ICEServer[];
      readonly ttl: number;
      readonly resumed: boolean;
    }
  | ({ readonly type: "member-joined" } & Member)
  | { readonly type: "member-left"; readonly peer: PeerID }
  | { readonly type: "signal"; readonly from: PeerID; readonly sealed: string }
  | {
      readonly type: "error";
      readonly code: string;
      readonly message: string;
      readonly retryAfter: number;
      readonly peer?: PeerID;
    }
  | { readonly type: "moving"; readonly within: number }
  | { readonly type: "pong" };

/** A frame that breaks the grammar. */
export class BadMessageError extends Error {
  override readonly name = "BadMessageError";

  constructor(reason: string) {
    super(`the frame is not a message of this protocol: ${reason}`);
  }
}

/** The JSON of `m`, its type first. */
export function marshalMessage(m: ClientMessage): string {
  const { type, ...rest } = m;
  return JSON.stringify({ type, ...rest });
}

/**
 * Reads a text frame from a server, or undefined for a type of a later version, which is to be ignored. The caller
 * has bounded the frame. Throws a `BadMessageError`, which never quotes the frame.
 */
export function parseServerMessage(frame: string): ServerMessage | undefined {
  const f = parseText(frame);
  if (!f) throw new BadMessageError("it is not a JSON object");
  const type = need(f, "type", text(f.type));
  switch (type) {
    case "joined":
      return joined(f);
    case "member-joined":
      return { type, ...member(f) };
    case "member-left":
      return { type, peer: id(f, "peer") };
    case "signal": {
      const sealed = need(f, "sealed", text(f.sealed));
      if (sealed === "" || sealed.length > MaxSealed) {
        throw new BadMessageError(`field "sealed" has 1 to ${MaxSealed} characters`);
      }
      return { type, from: id(f, "from"), sealed };
    }
    case "error":
      return serverError(f);
    case "moving":
      need(f, "within", f.within);
      return { type, within: whole(f, "within") };
    case "pong":
      return { type };
    default:
      return undefined;
  }
}

function joined(f: Fields): ServerMessage {
  const peer = id(f, "peer");
  const token = need(f, "token", text(f.token));
  const members = need(f, "members", list(f.members));
  const servers = has(f, "iceServers") ? need(f, "iceServers", list(f.iceServers)) : [];
  const ttl = whole(f, "ttl");
  const resumed = flag(f, "resumed");
  if (token.length > MaxToken) throw new BadMessageError("the token is out of range");
  if (members.length > MaxMembers) throw new BadMessageError("there are too many members");
  return {
    type: "joined",
    peer,
    token,
    members: members.map((m) => member(need({ member: m }, "member", asObject(m)))),
    iceServers: servers.map((s) => server(need({ server: s }, "server", asObject(s)))),
    ttl,
    resumed,
  };
}

function server(f: Fields): ICEServer {
  const urls = need(f, "urls", list(f.urls)).map((u) => need({ url: u }, "url", text(u)));
  const username = has(f, "username") ? need(f, "username", text(f.username)) : "";
  const credential = has(f, "credential") ? need(f, "credential", text(f.credential)) : "";
  return { urls, ...(username && { username }), ...(credential && { credential }) };
}

function serverError(f: Fields): ServerMessage {
  return {
    type: "error",
    code: need(f, "code", text(f.code)),
    message: has(f, "message") ? need(f, "message", text(f.message)) : "",
    retryAfter: whole(f, "retryAfter"),
    ...(has(f, "peer") && { peer: id(f, "peer") }),
  };
}

function member(f: Fields): Member {
  return { peer: id(f, "peer"), meta: meta(f) };
}

function meta(f: Fields): Meta {
  if (!has(f, "meta")) return { replica: false, reader: false, name: "" };
  const m = need(f, "meta", asObject(f.meta));
  const name = has(m, "name") ? need(m, "name", text(m.name)) : "";
  const fault = nameFault(name);
  if (fault) throw new BadMessageError(fault);
  return { replica: flag(m, "replica"), reader: flag(m, "reader"), name };
}

/** What is wrong with the name of a peer, as a sentence, or undefined. */
export function nameFault(name: string): string | undefined {
  const n = utf8Length(name);
  if (n > MaxName) return `the name of a peer has at most ${MaxName} bytes, this one has ${n}`;
  if (/\p{Cc}/u.test(name)) return "the name of a peer has no control characters";
  return undefined;
}

function id(f: Fields, name: string): PeerID {
  const v = f[name];
  return need(f, name, isID(v) ? v : undefined);
}

function whole(f: Fields, name: string): number {
  return has(f, name) ? need(f, name, integerOf(f[name], Number.MAX_SAFE_INTEGER)) : 0;
}

function flag(f: Fields, name: string): boolean {
  const v = f[name];
  return has(f, name) ? need(f, name, typeof v === "boolean" ? v : undefined) : false;
}

function list(v: unknown): unknown[] | undefined {
  return Array.isArray(v) ? v : undefined;
}

function need<T>(f: Fields, name: string, value: T | undefined): T {
  if (!has(f, name)) throw new BadMessageError(`field "${name}" is missing`);
  if (value === undefined) throw new BadMessageError(`field "${name}" has the wrong type or range`);
  return value;
}
