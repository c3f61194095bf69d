import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["src/**/*.test.ts", "src/**/*.test.tsx", "test/**/*.test.ts"],
    // These limits end what would never end; a busy machine is not to reach them.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    // Most tests wait for a browser more than they compute.
    maxWorkers: "100%",
    // What a test waits for comes at once on a machine with nothing else to do; one second, the default, is not enough on others.
    expect: { poll: { timeout: 60_000 } },
  },
});
