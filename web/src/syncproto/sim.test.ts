// Seeded random runs. CRMESH_SEEDS is how many; CRMESH_SEED runs one alone.

import { expect, test } from "vitest";
import { simulate, type Variant } from "./testing/sim.ts";

const seeds = Number(process.env.CRMESH_SEEDS ?? 300);
const only = process.env.CRMESH_SEED;

test("no run loses a write, and all come to rest equal", { timeout: 600_000 }, () => {
  const first = only === undefined ? 1 : Number(only);
  const last = only === undefined ? seeds : first;
  for (let seed = first; seed <= last; seed++) {
    try {
      simulate(seed);
    } catch (error) {
      throw new Error(`seed ${seed} (CRMESH_SEED=${seed} runs it alone)`, { cause: error });
    }
  }
});

// How many runs it takes at most to see that a broken core is one.
const broken: [Variant, number][] = [
  ["no deps", 60],
  ["deps from the vector, not from the log", 600],
  ["resume past held entries", 600],
  ["claims as of sending, not of the read", 300],
  ["claims in the middle of a walk", 60],
];

test.runIf(only === undefined).each(broken)("%s: noticed", { timeout: 600_000 }, (variant, most) => {
  let noticed: number | undefined;
  for (let seed = 1; noticed === undefined && seed <= most; seed++) {
    try {
      simulate(seed, variant);
    } catch {
      noticed = seed;
    }
  }
  expect(noticed).toBeDefined();
});
