import { expect, test } from "vitest";
import type { Link } from "./link.ts";
import type { Changes } from "./message.ts";
import { judge, newPruning, sendPrune } from "./prune.ts";
import type { CoreState } from "./state.ts";
import { siteOf } from "./testing/network.ts";

// What was asked, wanted after all, and asked again before anything of that was said: there is nothing to say. In one message
// both would be malformed, and cost the link.
test("what is pruned again before its graft was said stays pruned", () => {
  const said: unknown[] = [];
  const send = (_l: Link, m: unknown) => said.push(m);
  const core = { cfg: { site: siteOf("d") }, vector: new Map(), seen: new Map(), send };
  const c = core as unknown as CoreState;
  const linkTo = (id: number, remote: string) =>
    ({
      id,
      remote: siteOf(remote),
      known: new Map(),
      ...newPruning(siteOf("d"), siteOf(remote)),
    }) as unknown as Link;
  const [slow, quick] = [linkTo(1, "c"), linkTo(2, "b")];
  const comes = (l: Link, version: number) => {
    const spans = [{ origin: siteOf("a"), after: version - 1, version, deps: new Map() }];
    judge(c, l, { spans, groups: [] } as unknown as Changes);
  };
  comes(quick, 1);
  comes(slow, 1);
  sendPrune(c, slow);
  expect(said).toMatchObject([{ prune: [siteOf("a")], graft: [] }]);
  comes(slow, 2);
  comes(quick, 3);
  comes(slow, 3);
  sendPrune(c, slow);
  expect(said).toHaveLength(1);
  expect(slow.asked).toContain(siteOf("a"));
});
