/** Resolves after `milliseconds`, or rejects with the signal's reason. */
export function sleep(milliseconds: number, signal?: AbortSignal | null): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Returns the milliseconds before the next try: doubling from 250 to `most`, with jitter. */
export function backoff(failures: number, most: number): number {
  return Math.min(most, 250 * 2 ** failures) * (0.5 + Math.random() / 2);
}
