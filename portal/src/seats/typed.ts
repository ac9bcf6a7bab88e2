import { useLayoutEffect } from "react";

/** Notes whether a part of the dialog holds something that closing the dialog would lose. */
export type MarkTyped = (what: string, isTyped: boolean) => void;

/** Keeps the mark of one part. It is set before the next key can be pressed, so Escape never loses what was typed. */
export function useMark(markTyped: MarkTyped, what: string, isTyped: boolean): void {
  useLayoutEffect(() => {
    markTyped(what, isTyped);
    return () => markTyped(what, false);
  }, [markTyped, what, isTyped]);
}
