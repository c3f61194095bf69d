import { type KeyboardEvent, type RefObject, useCallback, useState } from "react";

export interface Position {
  readonly row: number;
  readonly column: number;
}

interface Size {
  readonly rows: number;
  readonly columns: number;
}

/**
 * The keyboard of a grid as ARIA describes it: one cell takes part in the tab order, arrow keys move it, Home and End go
 * along the row, with Ctrl to the corners. `turn` is called for PageUp (-1) and PageDown (1).
 */
export function useGridKeys(grid: RefObject<HTMLElement | null>, size: Size, turn: (by: number) => void) {
  const [wanted, setWanted] = useState<Position>({ row: 0, column: 0 });
  // Rows can go while the focus stands on them.
  const active = { row: clamp(wanted.row, size.rows), column: clamp(wanted.column, size.columns) };

  const focus = useCallback(
    (at: Position) => {
      setWanted(at);
      const cell = grid.current?.querySelector<HTMLElement>(`[data-cell="${at.row}-${at.column}"]`);
      cell?.focus();
    },
    [grid],
  );

  function onKeyDown(event: KeyboardEvent) {
    if (event.altKey || event.metaKey) return;
    const to = target(event, active, size);
    if (to !== undefined) {
      event.preventDefault();
      focus({ row: clamp(to.row, size.rows), column: clamp(to.column, size.columns) });
    } else if (event.key === "PageDown" || event.key === "PageUp") {
      event.preventDefault();
      turn(event.key === "PageDown" ? 1 : -1);
    }
  }

  return { active, focus, setActive: setWanted, onKeyDown };
}

function target(event: KeyboardEvent, at: Position, size: Size): Position | undefined {
  switch (event.key) {
    case "ArrowUp":
      return { ...at, row: at.row - 1 };
    case "ArrowDown":
      return { ...at, row: at.row + 1 };
    case "ArrowLeft":
      return { ...at, column: at.column - 1 };
    case "ArrowRight":
      return { ...at, column: at.column + 1 };
    case "Home":
      return { row: event.ctrlKey ? 0 : at.row, column: 0 };
    case "End":
      return { row: event.ctrlKey ? size.rows - 1 : at.row, column: size.columns - 1 };
    default:
      return undefined;
  }
}

function clamp(n: number, count: number): number {
  return Math.max(0, Math.min(n, count - 1));
}
