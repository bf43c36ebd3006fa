/**
 * Calls `then` after `ms` unless cancelled, but only after one poll of the sockets. After a stall of the event loop,
 * timers run before I/O callbacks, so a plain timer would report a timeout for replies that have already arrived.
 *
 * `then` gets the time (`performance.now()`) at which the timer fired. Measure against that, not against the time of
 * the call: a stall between the two is not time in which a reply could have been read.
 */
export function withResponseTimeout(ms: number, then: (expiredAtMs: number) => void): { cancel(): void } {
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
