/** Median and range of samples. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** The median (of an even number of samples the mean of the two middle ones), and the range. */
export function spreadOf(samples: readonly number[]): Spread {
  const sorted = [...samples].sort((a, b) => a - b);
  const [min, max] = [sorted[0], sorted.at(-1)];
  if (min === undefined || max === undefined) {
    throw new RangeError("No samples, so no median");
  }
  const [low, high] = [sorted[Math.ceil(sorted.length / 2) - 1], sorted[Math.floor(sorted.length / 2)]];
  return { median: ((low ?? min) + (high ?? max)) / 2, min, max };
}

/** The smallest sample that at least this share of the samples does not exceed (nearest rank). */
export function quantile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const value = sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)];
  if (value === undefined) {
    throw new RangeError("No samples, so no quantile");
  }
  return value;
}

/** Ratios by round, because both values of a round were measured under the same conditions. Incomplete rounds are left out. */
export function ratios(here: readonly number[], there: readonly number[]): number[] {
  return here.slice(0, there.length).map((value, round) => value / (there[round] ?? Number.NaN));
}
