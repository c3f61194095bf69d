// The golden vectors that Go and TypeScript share.

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { fromHex, toHex } from "../changeset/change.ts";
import { encode64 } from "./base64.ts";
import { DescriptionError, marshalDescription, parseDescription, UnknownKindError } from "./description.ts";
import { graph } from "./graph.ts";
import { comparePeers, isID } from "./id.ts";
import { LinkError, parseLink, readLink, tokenOf, withToken, writeLink, writerKeys } from "./link.ts";
import { BadMessageError, type ClientMessage, marshalMessage, parseServerMessage } from "./messages.ts";
import { fingerprint, signRole, verifyRole } from "./proof.ts";
import { NotOpenedError, openDescription, sealWith } from "./seal.ts";
import { webSocketURL } from "./url.ts";

type Fields = Record<string, string>;

function golden(name: string): Record<string, Fields[]> {
  const url = new URL(`../../../pkg/signaling/testdata/${name}.json`, import.meta.url);
  return JSON.parse(readFileSync(url, "utf8"));
}

// Runs `check` for each of the vectors, of which there is at least one.
function each(vectors: Fields[] | undefined, check: (v: Fields) => void | Promise<void>): Promise<void> {
  expect(vectors?.length).toBeGreaterThan(0);
  return (vectors ?? []).reduce(
    (done, v) =>
      done.then(async () => {
        try {
          await check(v);
        } catch (error) {
          throw new Error(`vector ${JSON.stringify(v).slice(0, 300)}`, { cause: error });
        }
      }),
    Promise.resolve(),
  );
}

const field = (v: Fields, name: string): string => v[name] as string;
const bytes = (v: Fields, name: string) => fromHex(field(v, name));
const utf8 = (s: string) => new TextEncoder().encode(s);

test("rooms and links", async () => {
  const { rooms, bad } = golden("links");
  await each(rooms, async (v) => {
    const keys = await writerKeys(bytes(v, "write"));
    expect(keys.room).toBe(v.roomB64);
    expect(toHex(keys.read)).toBe(v.read);
    expect(toHex(keys.writerPublic)).toBe(v.writerPublic);
    expect(writeLink(keys, field(v, "base"))).toBe(v.writeLink);
    expect(readLink(keys, field(v, "base"))).toBe(v.readLink);
    const writer = await parseLink(field(v, "writeLink"));
    expect(writer.base).toBe(v.base);
    expect(toHex(writer.keys.writer?.secret ?? new Uint8Array())).toBe(v.write);
    const reader = await parseLink(` ${field(v, "readLink")}\n`);
    expect(reader.keys.writer).toBeUndefined();
    expect(readLink(reader.keys, reader.base)).toBe(v.readLink);
  });
  await each(bad, async (v) => {
    const error = await parseLink(field(v, "text")).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(LinkError);
    expect((error as LinkError).fault).toBe(v.reason);
  });
});

test("a read link without its last part", async () => {
  const keys = await writerKeys(new Uint8Array(32).fill(5));
  const link = readLink(keys, "https://a.example/x/");
  await expect(parseLink(link.slice(0, link.lastIndexOf(".")))).rejects.toMatchObject({ fault: "read-cut" });
});

test("envelopes", async () => {
  await each(golden("seal").sealed, async (v) => {
    const keys = await writerKeys(bytes(v, "write"));
    const from = encode64(bytes(v, "from"));
    const to = encode64(bytes(v, "to"));
    expect(await sealWith(keys, from, to, utf8(field(v, "plaintext")), bytes(v, "nonce"))).toBe(v.sealed);
    const d = await openDescription(keys, from, to, field(v, "sealed"));
    expect(new TextDecoder().decode(marshalDescription(d))).toBe(v.plaintext);
    await expect(openDescription(keys, to, from, field(v, "sealed"))).rejects.toBeInstanceOf(NotOpenedError);
    const cut = field(v, "sealed").slice(0, -4);
    await expect(openDescription(keys, from, to, cut)).rejects.toBeInstanceOf(NotOpenedError);
  });
});

test("descriptions", async () => {
  const { valid, invalid, unknown } = golden("descriptions");
  await each(valid, (v) => {
    const d = parseDescription(utf8(field(v, "json")));
    expect(new TextDecoder().decode(marshalDescription(d))).toBe(v.canonical);
  });
  await each(invalid, (v) => {
    expect(() => parseDescription(utf8(field(v, "json")))).toThrow(DescriptionError);
  });
  await each(unknown, (v) => {
    expect(() => parseDescription(utf8(field(v, "json")))).toThrow(UnknownKindError);
  });
});

test("role proofs", async () => {
  const { proofs, fingerprints } = golden("proofs");
  await each(proofs, async (v) => {
    const keys = await writerKeys(bytes(v, "seed"));
    const own = { fingerprint: bytes(v, "ownFingerprint"), nonce: bytes(v, "ownNonce") };
    const remote = { fingerprint: bytes(v, "remoteFingerprint"), nonce: bytes(v, "remoteNonce") };
    const signature = await signRole(keys, own, remote);
    expect(toHex(signature)).toBe(v.signature);
    expect(await verifyRole(keys.writerPublic, own, remote, signature)).toBe(true);
    expect(await verifyRole(keys.writerPublic, remote, own, signature)).toBe(false);
    expect(await verifyRole(keys.writerPublic, own, remote, new Uint8Array(0))).toBe(false);
  });
  await each(fingerprints, (v) => {
    if (v.fingerprint) expect(toHex(fingerprint(field(v, "sdp")))).toBe(v.fingerprint);
    else expect(() => fingerprint(field(v, "sdp"))).toThrow("sha-256");
  });
});

test("messages", async () => {
  const { client, server, bad, unknown } = golden("messages");
  await each(client, (v) => {
    expect(marshalMessage(JSON.parse(field(v, "canonical")) as ClientMessage)).toBe(v.canonical);
  });
  await each(server, (v) => {
    const m = parseServerMessage(field(v, "json"));
    expect(m).toEqual(parseServerMessage(field(v, "canonical")));
    expect(m).toMatchObject(JSON.parse(field(v, "canonical")));
  });
  await each(bad, (v) => {
    expect(() => parseServerMessage(field(v, "json"))).toThrow(BadMessageError);
  });
  await each(unknown, (v) => {
    expect(parseServerMessage(field(v, "json"))).toBeUndefined();
  });
});

test("graphs", () => {
  const { rooms } = golden("graph") as unknown as {
    rooms: { name: string; members: string[]; links: string[] | null }[];
  };
  expect(rooms.length).toBeGreaterThan(0);
  for (const room of rooms) {
    const members = room.members.map((text) => {
      const [kind, peer = ""] = text.split(" ");
      return { peer, meta: { replica: kind === "replica", reader: kind === "reader", name: "" } };
    });
    const places = new Map(members.map((m, i) => [m.peer, i]));
    const links = members.map((m) =>
      graph(members, m.peer)
        .map((peer) => places.get(peer) ?? -1)
        .sort((a, b) => a - b)
        .join(" "),
    );
    expect(links, room.name).toEqual(room.links ?? []);
  }
});

test("the order of a long list does not matter", () => {
  const members = Array.from({ length: 512 }, (_, i) => {
    const id = new Uint8Array(16).map((_, j) => (i * 251 + j * 7) % 256);
    id[0] = i >> 8;
    id[1] = i & 255;
    return { peer: encode64(id), meta: { replica: i % 64 === 0, reader: i % 4 === 0, name: "" } };
  });
  const own = members[1] as (typeof members)[number];
  const links = graph(members, own.peer);
  expect(links.length).toBeGreaterThan(4);
  expect(graph([...members].reverse(), own.peer).sort()).toEqual(links.sort());
});

test("ids", async () => {
  const { ordered, bad } = golden("ids");
  await each(ordered, (v) => {
    expect(comparePeers(field(v, "lesser"), field(v, "greater"))).toBe(-1);
    expect(comparePeers(field(v, "greater"), field(v, "lesser"))).toBe(1);
    expect(comparePeers(field(v, "lesser"), field(v, "lesser"))).toBe(0);
  });
  expect(bad?.length).toBeGreaterThan(0);
  for (const text of bad ?? []) expect(isID(text)).toBe(false);
});

test("links that bring a join token along", async () => {
  const { links, signed } = golden("admission");
  await each(links, async (v) => {
    const { base, token, keys } = await parseLink(field(v, "link"));
    expect([base, token ?? ""]).toEqual([field(v, "base"), field(v, "token")]);
    const again = await parseLink(readLink(keys, withToken(base, token)));
    expect([again.base, again.token]).toEqual([base, token]);
  });
  await each(signed, (v) => expect(tokenOf(`?token=${field(v, "token")}`)).toBe(field(v, "token")));
});

test("addresses of signaling servers", () => {
  for (const [base, want] of [
    ["https://a.example", "wss://a.example/v1/signal"],
    ["http://127.0.0.1:8787/x/page?q#secret", "ws://127.0.0.1:8787/x/v1/signal"],
    ["wss://a.example/v1/signal", "wss://a.example/v1/signal"],
  ] as const) {
    expect(webSocketURL(base)).toBe(want);
  }
  expect(() => webSocketURL("ftp://a/#secret")).toThrow(/^(?!.*secret).*must start/);
  expect(() => webSocketURL("nonsense")).toThrow("is not like");
});
