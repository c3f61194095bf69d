/** Turns pages. Gone while there is only one. */
export function Pager({ page, pages, turn }: { page: number; pages: number; turn(to: number): void }) {
  if (pages < 2) return null;
  return (
    <nav className="pager" aria-label="Pages">
      <button type="button" aria-label="First page" disabled={page === 0} onClick={() => turn(0)}>
        «
      </button>
      <button type="button" aria-label="Previous page" disabled={page === 0} onClick={() => turn(page - 1)}>
        ‹
      </button>
      <label>
        <span className="visually-hidden">Page</span>
        <input
          type="number"
          min={1}
          max={pages}
          value={page + 1}
          data-testid="page-number"
          onChange={(event) => {
            const to = event.target.valueAsNumber;
            if (Number.isInteger(to)) turn(to - 1);
          }}
        />
      </label>
      <span className="pages">of {pages.toLocaleString("en")}</span>
      <button
        type="button"
        aria-label="Next page"
        disabled={page >= pages - 1}
        onClick={() => turn(page + 1)}
      >
        ›
      </button>
      <button
        type="button"
        aria-label="Last page"
        disabled={page >= pages - 1}
        onClick={() => turn(pages - 1)}
      >
        »
      </button>
    </nav>
  );
}
