/** Runs a task for each number below `count`, at most `inFlight` at once. */
export async function inParallel(
  count: number,
  inFlight: number,
  task: (n: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  await Promise.all(
    Array.from({ length: inFlight }, async () => {
      for (let n = next++; n < count; n = next++) {
        await task(n);
      }
    }),
  );
}
