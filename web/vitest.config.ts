import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["src/**/*.test.ts", "src/**/*.test.tsx", "test/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Most tests wait for a browser more than they compute.
    maxWorkers: "100%",
    // What a test waits for comes at once on a machine with nothing else to do; one second, the default, is not enough on others.
    expect: { poll: { timeout: 30_000 } },
  },
});
