import { readFileSync } from "node:fs";
import { expect, test, vi } from "vitest";

const text = readFileSync(new URL("./service-worker.js", import.meta.url), "utf8");
const index = "https://example.test/";

/** What the service worker answers to the request of the page, where the server's answer is `answer`. */
async function page(answer: (signal: AbortSignal) => Response): Promise<string> {
  const listeners = new Map<string, (event: unknown) => void>();
  const self = {
    location: { href: `${index}sw.js` },
    addEventListener: (type: string, listener: (event: unknown) => void) => listeners.set(type, listener),
  };
  const caches = { open: async () => ({ match: async () => new Response("kept") }) };
  const fetch = async (_: unknown, { signal }: { signal: AbortSignal }) => answer(signal);
  new Function("self", "caches", "fetch", "FILES", "VERSION", text)(self, caches, fetch, [], "1");
  let response: Promise<Response> | undefined;
  listeners.get("fetch")?.({
    request: { method: "GET", mode: "navigate", url: index },
    respondWith: (r: Promise<Response>) => {
      response = r;
    },
  });
  return (await response)?.text() ?? "none";
}

test("the newest page is shown if all of it comes in time, else the kept one", async () => {
  expect(await page(() => new Response("newest"))).toBe("newest");
  expect(await page(() => new Response("gone", { status: 502 }))).toBe("kept");
  const late = new AbortController();
  vi.spyOn(AbortSignal, "timeout").mockReturnValue(late.signal);
  const breaksOff = (signal: AbortSignal) =>
    new Response(
      new ReadableStream({
        start(stream) {
          stream.enqueue(new TextEncoder().encode("new"));
          signal.addEventListener("abort", () => stream.error(signal.reason));
          setTimeout(() => late.abort(), 10);
        },
      }),
    );
  expect(await page(breaksOff)).toBe("kept");
});
