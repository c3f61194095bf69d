import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [react()],
  // The engine finds its wasm beside its own file, which the dependency optimizer would move.
  optimizeDeps: { exclude: ["@vlcn.io/wa-sqlite"] },
  worker: { format: "es" },
  build: { target: "es2023", outDir: "dist", emptyOutDir: true, chunkSizeWarningLimit: 1200 },
});
