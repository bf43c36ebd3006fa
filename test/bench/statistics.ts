/** What a list of samples comes to. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** The middle of the samples (of an even number the mean of the two in the middle), and how far they go. */
export function spreadOf(samples: readonly number[]): Spread {
  const sorted = [...samples].sort((a, b) => a - b);
  const [min, max] = [sorted[0], sorted.at(-1)];
  if (min === undefined || max === undefined) {
    throw new RangeError("There is no median of no samples");
  }
  const [low, high] = [sorted[Math.ceil(sorted.length / 2) - 1], sorted[Math.floor(sorted.length / 2)]];
  return { median: ((low ?? min) + (high ?? max)) / 2, min, max };
}

/** The least sample that at least this share of the samples does not exceed (nearest rank). */
export function quantile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const value = sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)];
  if (value === undefined) {
    throw new RangeError("There is no quantile of no samples");
  }
  return value;
}

/** Round by round, since the two of one round met the same machine. Rounds that only one has are left out. */
export function ratios(here: readonly number[], there: readonly number[]): number[] {
  return here.slice(0, there.length).map((value, round) => value / (there[round] ?? Number.NaN));
}
