// The passing of time, and of turns, in a Worker.

import { TickMillis } from "../syncproto/ops.ts";
import type { Driver } from "./driver.ts";

/** Resolves after the events that have come in by now. */
export function turn(): Promise<void> {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

/** Calls `tick` of a driver every TickMillis; returns the end of that. */
export function keepTime(driver: Driver): () => void {
  let last = performance.now();
  const timer = setInterval(() => {
    const elapsed = Math.floor((performance.now() - last) / TickMillis);
    last += elapsed * TickMillis;
    driver.tick(elapsed);
  }, TickMillis);
  return () => clearInterval(timer);
}
