// Keeps the page's own files, so that it opens without a server; the data is in the browser anyway. The build puts two
// constants before this text: FILES, the paths of all files of the page, and VERSION, a hash over them.

/* global FILES, VERSION */

const CACHE = `crmesh-page-${VERSION}`;
/** How long the network may take to give the newest page before the kept one is shown, in ms. */
const PATIENCE = 2000;
const INDEX = new URL("./", self.location.href).href;
const ASSETS = new Set(FILES.map((file) => new URL(file, INDEX).href));

self.addEventListener("install", (event) => {
  event.waitUntil(
    (async () => {
      const cache = await caches.open(CACHE);
      await cache.addAll([INDEX, ...ASSETS]);
      await self.skipWaiting();
    })(),
  );
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      for (const name of await caches.keys()) {
        if (name.startsWith("crmesh-page-") && name !== CACHE) await caches.delete(name);
      }
      await self.clients.claim();
    })(),
  );
});

self.addEventListener("fetch", (event) => {
  const { method, mode, url } = event.request;
  if (method !== "GET") return;
  if (mode === "navigate" && url.split(/[?#]/)[0] === INDEX) event.respondWith(page(event.request));
  else if (ASSETS.has(url)) event.respondWith(asset(event.request));
});

/** The files' names change with their content, so a kept one is never stale. */
async function asset(request) {
  const cache = await caches.open(CACHE);
  return (await cache.match(request.url)) ?? fetch(request);
}

/** The newest page if the server answers in time, else the kept one. */
async function page(request) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(INDEX);
  if (kept === undefined) return fetch(request);
  try {
    const answer = await fetch(request, { signal: AbortSignal.timeout(PATIENCE) });
    // As a whole, since one that breaks off when the time is over would be shown as far as it came.
    return answer.ok ? new Response(await answer.blob(), answer) : kept;
  } catch {
    return kept;
  }
}
