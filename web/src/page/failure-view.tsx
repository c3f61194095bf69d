import type { Failure } from "./failures.ts";

/** A failure that takes the place of what was to be shown. */
export function FailureView({ failure, again }: { failure: Failure; again?: (() => void) | undefined }) {
  return (
    <section className="card failure" role="alert" data-testid="failure">
      <h2>{failure.title}</h2>
      <p>{failure.advice}</p>
      {again && (
        <button type="button" onClick={again}>
          Try again
        </button>
      )}
    </section>
  );
}
