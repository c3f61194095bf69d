// The client library in real Chromium: pages linked through a real signaling server.

import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { ClientLab, exec, settled, status } from "./lab.ts";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const schema = "CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('t')";
const all = "SELECT id, v FROM t ORDER BY id";

let lab: ClientLab;

beforeAll(async () => {
  lab = await ClientLab.start();
});

afterAll(async () => {
  await lab?.stop();
});

test("two pages sync, with the signaling server and without", async () => {
  const one = await lab.context();
  const two = await lab.context();
  const links = await lab.createRoom(await lab.tab(one));
  const a = await lab.open(one, links.write ?? "", "a");
  await exec(a, schema);
  await exec(a, "INSERT INTO t VALUES (1, 'one'), (2, 2.0)");
  const b = await lab.open(two, links.write ?? "", "b");
  await settled([a, b], all, [
    [1n, "one"],
    [2n, 2],
  ]);
  await exec(b, "INSERT INTO t VALUES (?, ?)", 3n, new Uint8Array([0, 255]));
  await exec(a, "UPDATE t SET v = ? WHERE id = 1", 2n ** 60n + 1n);
  const want = [
    [1n, 2n ** 60n + 1n],
    [2n, 2],
    [3n, new Uint8Array([0, 255])],
  ];
  await settled([a, b], all, want);
  expect((await status(b)).members).toMatchObject([{ name: "a", state: "open", role: "writer" }]);

  await lab.killSignal();
  await exec(b, "DELETE FROM t WHERE id = 2");
  await settled([a, b], all, [want[0] ?? [], want[2] ?? []]);
  await exec(a, "INSERT INTO t VALUES (2, 'again')");
  await settled([a, b], all, [want[0] ?? [], [2n, "again"], want[2] ?? []]);
  await lab.startSignal();
  await one.close();
  await two.close();
});
