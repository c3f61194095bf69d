import { expect, test } from "vitest";
import type { Description } from "../signaling/description.ts";
import { newPeerID } from "../signaling/id.ts";
import { newRoom } from "../signaling/link.ts";
import { sealDescription } from "../signaling/seal.ts";
import { Reach } from "./reach.ts";
import { Relays } from "./relay.ts";
import { defaultTiming } from "./timing.ts";

const want: Description = { kind: "want", session: 7 };

async function setUp() {
  const keys = await newRoom();
  const [own, peer, third] = [newPeerID(), newPeerID(), newPeerID()];
  const log: string[] = [];
  const envelopes: string[] = [];
  const server = { state: "joined" as "joined" | "waiting", knows: true };
  const neighbours = [{ link: 1, peer: third, healthy: true, waiting: 0, send: () => log.push("relayed") }];
  const relays = new Relays({ own, neighbours: () => neighbours, receive: () => true });
  let more = () => {};
  const reach = new Reach({
    keys,
    own,
    peer,
    relays,
    timing: { ...defaultTiming, unknown: 1_000 },
    signal: {
      get state() {
        return server.state;
      },
      signal: (_, sealed) => {
        if (server.state !== "joined") return false;
        log.push("to the server");
        envelopes.push(sealed);
        return true;
      },
    },
    receive: (d) => log.push(`got ${d.kind}`),
    another: () => {
      log.push("another way");
      more();
    },
  });
  const sent = async (how: string) => {
    log.length = 0;
    reach.send(want);
    await expect.poll(() => log).toEqual([how]);
  };
  return {
    keys,
    own,
    peer,
    log,
    envelopes,
    server,
    neighbours,
    relays,
    reach,
    sent,
    onAnother: (f: () => void) => (more = f),
  };
}

test("the server is first, then come other members", async () => {
  const { server, neighbours, reach, sent, log } = await setUp();
  await sent("to the server");
  server.state = "waiting";
  expect(reach.open).toBe(true);
  await sent("relayed");
  neighbours.length = 0;
  expect(reach.open).toBe(false);
  log.length = 0;
  reach.send(want);
  server.state = "joined";
  await sent("to the server"); // alone: what could not be sent before is not kept here
});

test("a member that the server does not know is looked for over others, and what was sent is sent again", async () => {
  const { reach, sent, log, neighbours, onAnother } = await setUp();
  await sent("to the server");
  log.length = 0;
  onAnother(() => reach.send(want));
  reach.unknown();
  reach.unknown(); // of a second envelope that was on its way
  await expect.poll(() => log).toEqual(["another way", "relayed"]);
  const [third] = neighbours.splice(0);
  await sent("to the server"); // nobody else is there
  if (third) neighbours.push(third);
  await sent("relayed");
  reach.known();
  await sent("to the server");
});

test("what does not open is dropped and counted", async () => {
  const { keys, own, peer, reach, log, envelopes, relays, sent } = await setUp();
  await sent("to the server");
  log.length = 0;
  reach.receive(envelopes[0] ?? ""); // it was made for the other direction
  await expect.poll(() => relays.figures.dropped).toBe(1);
  reach.receive(await sealDescription(keys, peer, own, want));
  await expect.poll(() => log).toEqual(["got want"]);
});
