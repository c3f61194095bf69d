import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import type { Plugin } from "vite";

/** What gets smaller. Smaller files than this are one packet anyway, in bytes. */
const compressible = /\.(html|js|css|wasm|svg|json)$/;
const smallest = 1024;

/** Puts NAME.br and NAME.gz beside each file of the build, which the server sends to those who take them. */
export function compress(): Plugin {
  let dir = "";
  return {
    name: "crmesh-compress",
    apply: "build",
    configResolved(config) {
      dir = join(config.root, config.build.outDir);
    },
    closeBundle() {
      for (const name of readdirSync(dir, { recursive: true, encoding: "utf8" })) {
        if (!compressible.test(name)) continue;
        const path = join(dir, name);
        const plain = readFileSync(path);
        if (plain.length < smallest) continue;
        const { BROTLI_PARAM_QUALITY, BROTLI_MAX_QUALITY, BROTLI_PARAM_SIZE_HINT } = constants;
        const params = { [BROTLI_PARAM_QUALITY]: BROTLI_MAX_QUALITY, [BROTLI_PARAM_SIZE_HINT]: plain.length };
        writeFileSync(`${path}.br`, brotliCompressSync(plain, { params }));
        writeFileSync(`${path}.gz`, gzipSync(plain, { level: 9 }));
      }
    },
  };
}
