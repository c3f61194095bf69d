// Seeded random runs. CRMESH_SEEDS is how many, CRMESH_SEED_FROM the seed of the first.

import { expect, test } from "vitest";
import { simulate, type Tally } from "./testing/sim.ts";
import type { Variant } from "./testing/variants.ts";

const seeds = Number(process.env.CRMESH_SEEDS ?? 300);
const from = Number(process.env.CRMESH_SEED_FROM ?? 1);

/** After so many runs all that a simulation means to try has to have happened. */
const enoughSeeds = 300;

test("no run loses a write, and all come to rest equal", { timeout: 600_000 }, () => {
  const tally: Tally = {};
  for (let seed = from; seed < from + seeds; seed++) {
    try {
      for (const [what, n] of Object.entries(simulate(seed))) tally[what] = (tally[what] ?? 0) + n;
    } catch (error) {
      throw new Error(`seed ${seed} (CRMESH_SEEDS=1 CRMESH_SEED_FROM=${seed} runs it alone)`, {
        cause: error,
      });
    }
  }
  const missing = Object.keys(tally).filter((what) => tally[what] === 0);
  if (seeds >= enoughSeeds) expect(missing, "what never happened").toEqual([]);
});

// How many runs it takes at most to see that a broken core, or a broken store, is one; and the seed of the first, if that is not 1.
const broken: [Variant, number, number?][] = [
  ["no deps", 100],
  ["deps from the vector, not from the log", 200],
  ["resume past held entries", 1000, 2342], // few see it: a sender believes only what was acknowledged
  ["claims as of sending, not of the read", 100],
  ["claims in the middle of a walk", 60],
  ["a renewal that writes nothing anew", 60],
  ["spans that name nothing they depend on", 1000, 451], // few see it
  ["spans passed on with what is left of their groups", 150],
  ["a store that records its own version in place of the origin's", 60],
  ["a stored vector that rows raise, not claims", 60],
  ["claims that are stored before their rows", 200],
  ["a crash that takes a commit back", 60],
];

test.runIf(from === 1).each(broken)("%s: noticed", { timeout: 600_000 }, (variant, most, from = 1) => {
  let noticed: number | undefined;
  for (let seed = from; noticed === undefined && seed < from + most; seed++) {
    try {
      simulate(seed, variant);
    } catch {
      noticed = seed;
    }
  }
  expect(noticed).toBeDefined();
});
