import { useEffect, useState } from "react";

/** How long opening a room may take until a person is told what may be the matter, in ms. */
const PATIENCE = 10_000;

/** What is shown until a room is open. What it is opened with may never come, as from a server that has stopped in the middle. */
export function Opening() {
  const [late, setLate] = useState(false);

  useEffect(() => {
    const timer = setTimeout(() => setLate(true), PATIENCE);
    return () => clearTimeout(timer);
  }, []);

  return (
    <main className="opening">
      <div role="status">
        <p>Opening the database…</p>
        {late && (
          <p data-testid="opening-late">
            This takes unusually long. The connection or the server may be the cause: a part of this page may
            not have come. Load the page again; if other tabs show this room, load them again, too. Nothing
            that was saved is lost by it.
          </p>
        )}
      </div>
      {late && (
        <button type="button" className="primary" onClick={() => location.reload()}>
          Load the page again
        </button>
      )}
    </main>
  );
}
