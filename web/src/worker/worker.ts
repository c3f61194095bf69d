// The entry of the dedicated Worker: one database and its core, at the service of one page.

import { type Postable, portOf, Rpc } from "../client/rpc.ts";
import { ending } from "../engine/errors.ts";
import { existsInIndexedDB } from "../engine/indexeddb.ts";
import { openStore } from "../engine/open.ts";
import { canUseOPFS } from "../engine/opfs.ts";
import { Driver, type DriverEvents } from "./driver.ts";
import type { PageMethods, Started, StorageKind, WorkerMethods } from "./protocol.ts";
import { keepTime } from "./time.ts";

let driver: Driver | undefined;
let stopTime = () => {};

function started(): Driver {
  if (!driver) throw new Error("the database is not open");
  return driver;
}

const methods: WorkerMethods = {
  async start({ database, writer, accept }): Promise<Started> {
    if (driver) throw new Error("the database is open already");
    const storage: StorageKind =
      (await canUseOPFS()) && !(await existsInIndexedDB(database)) ? "opfs" : "indexeddb";
    const store = await openStore(database, storage);
    const [seed = 0n] = crypto.getRandomValues(new BigUint64Array(1));
    const events: DriverEvents = {
      send: (link, bytes) => page.note("send", { link, bytes }, [bytes.buffer]),
      closeLink: (link, reason) => page.note("closeLink", { link, reason }),
      changed: (tables) => page.note("changed", { tables }),
      status: (status) => page.note("status", status),
      renewed: (site, line) => page.note("renewed", { site, line }),
      notice: (sentence) => page.note("notice", { sentence }),
      failed: (error) => {
        stopTime();
        page.note("failed", { sentence: ending(error) });
      },
    };
    driver = await Driver.start(store, writer, seed, events, { accept });
    stopTime = keepTime(driver);
    return { site: driver.site, storage };
  },
  exec: ({ id, sql, args }) => started().exec(id, sql, args),
  query: ({ sql, args }) => started().query(sql, args),
  open: ({ link, own, remote, proof }) => started().open(link, own, remote, proof),
  message: ({ link, bytes }) => started().message(link, bytes),
  refuse: ({ link, code, sentence }) => started().refuse(link, code, sentence),
  closed: ({ link }) => started().closed(link),
  async stop(): Promise<void> {
    stopTime();
    await driver?.stop();
  },
};

const page = new Rpc<WorkerMethods, PageMethods>(portOf(globalThis as unknown as Postable), methods);
