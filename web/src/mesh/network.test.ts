import { expect, test } from "vitest";
import { NetworkWatch } from "./network.ts";

function setUp(connection: EventTarget | undefined) {
  const window = new EventTarget();
  const document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  const clock = { now: 1_000_000 };
  const woken: boolean[] = [];
  const watch = new NetworkWatch({ window, document, connection, now: () => clock.now }, (moved) =>
    woken.push(moved),
  );
  watch.start();
  return { window, document, clock, woken, watch };
}

test("a page looks at its links when it is online again, is shown, or has another network", () => {
  const connection = new EventTarget();
  const { window, document, woken, watch } = setUp(connection);
  const all = () => {
    window.dispatchEvent(new Event("online"));
    connection.dispatchEvent(new Event("change"));
    window.dispatchEvent(new Event("pageshow"));
    document.dispatchEvent(new Event("visibilitychange"));
  };
  all();
  expect(woken).toEqual([true, true, false, false]);
  document.visibilityState = "hidden";
  document.dispatchEvent(new Event("visibilitychange"));
  expect(woken.length).toBe(4);
  watch.stop();
  document.visibilityState = "visible";
  all();
  expect(woken.length).toBe(4);
});

test("a jump of the clock of a page that is seen means that the machine slept", () => {
  const { document, clock, woken, watch } = setUp(undefined);
  const beats = (gap: number) => {
    clock.now += gap;
    watch.beat();
  };
  beats(250);
  beats(2_900); // the machine has much to do
  expect(woken).toEqual([]);
  beats(3_600_000);
  beats(250);
  expect(woken).toEqual([true]);
  document.visibilityState = "hidden";
  beats(60_000); // timers of hidden pages are rare
  document.visibilityState = "visible";
  beats(250);
  expect(woken).toEqual([true]);
});
