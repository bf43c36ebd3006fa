/**
 * Calls `then` after a time without `cancel`, but not before what already waits in sockets had its turn:
 * after a stall of the event loop timers come first, and would take answers that have arrived for answers that
 * have not. `then` is told when the time was over: a stall since then was no silence, for sockets were not looked at in it.
 */
export function withResponseTimeout(ms: number, then: (overAtMs: number) => void): { cancel(): void } {
  let immediate: NodeJS.Immediate | undefined;
  const timer = setTimeout(() => {
    immediate = setImmediate(then, performance.now());
  }, ms);
  return {
    cancel() {
      clearTimeout(timer);
      if (immediate !== undefined) {
        clearImmediate(immediate);
      }
    },
  };
}
