import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Plugin } from "vite";

const source = new URL("./src/page/service-worker.js", import.meta.url);

/** Builds sw.js: the service worker's text behind the list of the files that it keeps. */
export function offline(): Plugin {
  return {
    name: "crmesh-offline",
    apply: "build",
    enforce: "post",
    generateBundle(_options, bundle) {
      const files = Object.keys(bundle)
        .filter((name) => name !== "index.html")
        .sort();
      const text = readFileSync(source, "utf8");
      // The names of the files hold hashes of their content, and index.html names them.
      const version = createHash("sha256").update(files.join()).update(text).digest("hex").slice(0, 16);
      this.emitFile({
        type: "asset",
        fileName: "sw.js",
        source: `const FILES = ${JSON.stringify(files)};\nconst VERSION = "${version}";\n${text}`,
      });
    },
  };
}
