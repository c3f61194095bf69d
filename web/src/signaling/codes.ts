// Codes of the signaling server's errors, and what a client does about each.

/** The code of an error, and the reason of the close that follows. docs/SIGNALING.md has the table. */
export type Code =
  | "bad-message"
  | "binary"
  | "bad-utf8"
  | "too-large"
  | "subprotocol"
  | "peer-in-use"
  | "replaced"
  | "idle"
  | "slow"
  | "rate"
  | "join-rate"
  | "not-admitted"
  | "room-full"
  | "server-full"
  | "shutdown"
  | "unreachable";

/** The code behind a WebSocket close whose error frame did not arrive, or undefined if the close says nothing. */
export function codeOfClose(close: number, reason: string): Code | undefined {
  if (Object.hasOwn(closeCodes, reason)) return reason as Code;
  const found = Object.entries(closeCodes).find(([, number]) => number === close);
  return found?.[0] as Code | undefined;
}

// unreachable is no end of a connection. Of two codes with one number the first is the likelier.
const closeCodes: Record<Exclude<Code, "unreachable">, number> = {
  "bad-message": 4400,
  binary: 1003,
  "bad-utf8": 1007,
  "too-large": 1009,
  subprotocol: 1002,
  "peer-in-use": 4409,
  replaced: 4410,
  idle: 4408,
  slow: 4413,
  rate: 4429,
  "join-rate": 4429,
  "not-admitted": 4403,
  "room-full": 4503,
  "server-full": 4503,
  shutdown: 1001,
};

/** What a person is told about a code. */
export function sentenceOf(code: string): string {
  switch (code) {
    case "subprotocol":
      return "this address is no crmesh signaling server, or one of another version";
    case "not-admitted":
      return "the signaling server asks for a join token, and this device has none that is good: open a link that has one (?token=...)";
    case "room-full":
      return "the room is full; this device joins as soon as a place is free";
    case "server-full":
      return "the signaling server has no room left; trying again";
    case "rate":
    case "join-rate":
      return "the signaling server asks this device to slow down; trying again";
    case "shutdown":
      return "the signaling server is being stopped; trying again";
    case "peer-in-use":
      return "the signaling server still holds an earlier connection of this device; trying again";
    case "replaced":
      return "another connection of this device took over; trying again";
    default:
      return "the connection to the signaling server broke; trying again";
  }
}
