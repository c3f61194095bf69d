import { expect, test } from "vitest";
import { newPeerID } from "../signaling/id.ts";
import { newRoom } from "../signaling/link.ts";
import { MeshMember } from "./member.ts";
import { Relays } from "./relay.ts";
import { defaultTiming } from "./timing.ts";

test("a member that the room no longer lists is looked for, unless another peer has come as its site", async () => {
  const own = newPeerID();
  const member = new MeshMember(
    {
      keys: await newRoom(),
      own,
      peer: newPeerID(),
      meta: { replica: false, reader: false, name: "page" },
      site: () => "00".repeat(16),
      signal: { state: "joined", signal: () => true },
      relays: new Relays({ own, neighbours: () => [], receive: () => true }),
      timing: defaultTiming,
      sessions: undefined,
      configuration: () => ({}),
      admits: () => true,
      events: { open() {}, message() {}, fault() {}, closed() {}, changed() {} },
    },
    0,
  );
  member.succeeded("aa"); // it never had a link
  member.site = "aa";
  member.left();
  member.mournUntil = Number.POSITIVE_INFINITY;
  member.succeeded("bb");
  expect(member.over(1, true)).toBe(false);
  expect(member.over(1, false)).toBe(true); // there is no way to it
  member.succeeded("aa");
  expect(member.over(1, true)).toBe(true);
});
