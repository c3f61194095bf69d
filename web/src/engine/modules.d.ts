// Types of the parts of @vlcn.io/wa-sqlite that are imported by path; the package declares none for them.

declare module "@vlcn.io/wa-sqlite/dist/crsqlite-sync.mjs" {
  import type { SqliteWasm, SqliteWasmOptions } from "./wasm.ts";

  const factory: (options: SqliteWasmOptions) => Promise<SqliteWasm>;
  export default factory;
}

declare module "@vlcn.io/wa-sqlite/src/VFS.js" {
  /** A SQLite file system whose every method returns a result code and never throws. */
  export class Base {
    mxPathName: number;
    xClose(fileId: number): number;
    xRead(fileId: number, data: Uint8Array, offset: number): number;
    xWrite(fileId: number, data: Uint8Array, offset: number): number;
    xTruncate(fileId: number, size: number): number;
    xSync(fileId: number, flags: number): number;
    xFileSize(fileId: number, size: DataView): number;
    xFileControl(fileId: number, op: number, arg: DataView): number;
    xDeviceCharacteristics(fileId: number): number;
    xSectorSize(fileId: number): number;
    xOpen(name: string | null, fileId: number, flags: number, outFlags: DataView): number;
    xDelete(name: string, syncDir: number): number;
    xAccess(name: string, flags: number, result: DataView): number;
  }
}

declare module "@vlcn.io/wa-sqlite/src/examples/AccessHandlePoolVFS.js" {
  import { Base } from "@vlcn.io/wa-sqlite/src/VFS.js";
  /** Keeps SQLite's files in a pool of OPFS files, through synchronous access handles (dedicated workers only). */
  export class AccessHandlePoolVFS extends Base {
    constructor(directoryPath: string);
    readonly name: string;
    /** Settles once every file of the directory is open; rejects when one is open elsewhere. */
    readonly isReady: Promise<void>;
    close(): Promise<void>;
    getCapacity(): number;
    getSize(): number;
    addCapacity(n: number): Promise<number>;
  }
}
