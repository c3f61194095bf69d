// What a browser keeps of a database, taken out of it and put into it: a backup of the profile, and a copy of it.

import type { Page } from "playwright-core";
import type { StorageKind } from "../../src/worker/protocol.ts";
import { SOON } from "./lab.ts";

/** The bytes of files by name, or of blocks by number, in base64; and of a paged file its size. */
export interface Kept {
  readonly parts: readonly (readonly [string, string])[];
  readonly size: number;
}

/** What `kind` of storage holds of the database `name`, which no page has open, or is about to close. `page` is of its origin. */
export async function take(page: Page, kind: StorageKind, name: string): Promise<Kept> {
  return page.evaluate(
    async ([kind, name, patience]) => {
      const text = (bytes: Uint8Array) => {
        let s = "";
        for (const b of bytes) s += String.fromCharCode(b);
        return btoa(s);
      };
      const done = <T>(request: IDBRequest<T>) =>
        new Promise<T>((resolve, reject) => {
          request.onsuccess = () => resolve(request.result);
          request.onerror = () => reject(request.error);
        });
      const parts: [string, string][] = [];
      if (kind === "indexeddb") {
        const db = await done(indexedDB.open(`crmesh ${name}`, 1));
        const blocks = db.transaction("blocks").objectStore("blocks");
        const [keys, values] = [await done(blocks.getAllKeys()), await done(blocks.getAll())];
        keys.forEach((key, i) => {
          parts.push([String(key), text(values[i])]);
        });
        const { size } = await done(db.transaction("meta").objectStore("meta").get("file"));
        db.close();
        return { parts, size };
      }
      const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("crmesh");
      const dir = await root.getDirectoryHandle(encodeURIComponent(name));
      // The Worker of the page that was closed may still have the files.
      for (const end = performance.now() + patience; ; ) {
        try {
          parts.length = 0;
          for await (const file of dir.values()) {
            if (file.kind !== "file") continue;
            const bytes = await (await (file as FileSystemFileHandle).getFile()).arrayBuffer();
            parts.push([file.name, text(new Uint8Array(bytes))]);
          }
          return { parts, size: 0 };
        } catch (error) {
          if (performance.now() > end) throw error;
        }
      }
    },
    [kind, name, SOON] as const,
  );
}

/** Makes `kept` what `kind` of storage holds of the database `name`, whatever it was. */
export async function put(page: Page, kind: StorageKind, name: string, kept: Kept): Promise<void> {
  await page.evaluate(
    async ([kind, name, { parts, size }, patience]) => {
      const bytes = (text: string) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      if (kind === "indexeddb") {
        const request = indexedDB.open(`crmesh ${name}`, 1);
        request.onupgradeneeded = () => {
          request.result.createObjectStore("blocks");
          request.result.createObjectStore("meta");
        };
        await new Promise((resolve) => {
          request.onsuccess = resolve;
        });
        const change = request.result.transaction(["blocks", "meta"], "readwrite");
        const blocks = change.objectStore("blocks");
        blocks.clear();
        for (const [n, text] of parts) blocks.put(bytes(text), Number(n));
        if (parts.length > 0) change.objectStore("meta").put({ size, owner: "" }, "file");
        await new Promise((resolve) => {
          change.oncomplete = resolve;
        });
        request.result.close();
        return;
      }
      const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("crmesh", {
        create: true,
      });
      const dirName = encodeURIComponent(name);
      for (const end = performance.now() + patience; ; ) {
        try {
          await root.removeEntry(dirName, { recursive: true }).catch((error: DOMException) => {
            if (error.name !== "NotFoundError") throw error;
          });
          break;
        } catch (error) {
          if (performance.now() > end) throw error;
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
      }
      const dir = await root.getDirectoryHandle(dirName, { create: true });
      for (const [file, text] of parts) {
        const writable = await (await dir.getFileHandle(file, { create: true })).createWritable();
        await writable.write(bytes(text));
        await writable.close();
      }
    },
    [kind, name, kept, SOON] as const,
  );
}
