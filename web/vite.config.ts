import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";
import { compress } from "./compress.ts";
import { offline } from "./offline.ts";

export default defineConfig({
  // The page may stand below any path.
  base: "./",
  plugins: [react(), offline(), compress()],
  // The engine finds its wasm beside its own file, which the dependency optimizer would move.
  optimizeDeps: { exclude: ["@vlcn.io/wa-sqlite"] },
  worker: { format: "es" },
  build: { target: "es2023", outDir: "dist", emptyOutDir: true, chunkSizeWarningLimit: 1200 },
});
