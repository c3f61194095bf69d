/**
 * Has the browser keep the page's files, so that it opens with no server. Only in a build, and where the browser allows
 * it; without, the page works as long as a server gives it.
 */
export function keepPage(): void {
  if (!import.meta.env.PROD || !("serviceWorker" in navigator)) return;
  navigator.serviceWorker.register("./sw.js").catch((error: unknown) => {
    // Nothing is lost by it but the page without a server; private windows refuse.
    // biome-ignore lint/suspicious/noConsole: for whoever wonders why
    console.info("the page is not kept for use without a server:", error);
  });
}
