import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Live, RERUN_PAUSE } from "./live.ts";

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

describe("Live", () => {
  it("runs at once, never two at a time, and once more for all pokes meanwhile", async () => {
    let running = 0;
    let most = 0;
    let runs = 0;
    const live = new Live(async () => {
      most = Math.max(most, ++running);
      runs++;
      await new Promise((resolve) => setTimeout(resolve, 50));
      running--;
    });
    expect(runs).toBe(1);
    for (let i = 0; i < 10; i++) live.poke();
    await vi.advanceTimersByTimeAsync(50 + RERUN_PAUSE - 1);
    expect(runs).toBe(1);
    await vi.advanceTimersByTimeAsync(1 + 50 + RERUN_PAUSE);
    expect(runs).toBe(2);
    live.poke();
    expect(runs).toBe(3);
    await vi.advanceTimersByTimeAsync(1000);
    expect([runs, most]).toEqual([3, 1]);
    live.stop();
  });

  it("keeps the pause between runs, however often it is poked", async () => {
    let runs = 0;
    const live = new Live(async () => {
      runs++;
    });
    for (let ms = 0; ms < 1000; ms++) {
      live.poke();
      await vi.advanceTimersByTimeAsync(1);
    }
    expect(runs).toBeLessThanOrEqual(1000 / RERUN_PAUSE + 2);
    expect(runs).toBeGreaterThanOrEqual(1000 / RERUN_PAUSE - 2);
    live.stop();
  });

  it("does not run after stop", async () => {
    let runs = 0;
    const live = new Live(async () => {
      runs++;
    });
    live.poke();
    live.stop();
    live.poke();
    await vi.advanceTimersByTimeAsync(1000);
    expect(runs).toBe(1);
  });
});
