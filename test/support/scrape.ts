/** The parsed `/metrics` of an admin server. */
export interface Scrape {
  /** The sum of the metric's series with these labels, or `undefined` if there is none. */
  value(name: string, labels?: Readonly<Record<string, string>>): number | undefined;
  /** Every series as text: `name{label="…"}`. */
  readonly series: readonly string[];
  /** The value of each of them. */
  readonly values: ReadonlyMap<string, number>;
  /** The type of each metric: `counter`, `gauge`, `histogram`. */
  readonly types: ReadonlyMap<string, string>;
}

export async function scrape(adminUrl: string | undefined): Promise<Scrape> {
  const response = await fetch(`${adminUrl}/metrics`);
  if (!response.ok) {
    throw new Error(`/metrics responded with ${response.status}`);
  }
  return read(await response.text());
}

function read(text: string): Scrape {
  const lines = text.split("\n").filter((line) => line !== "");
  const samples = lines
    .filter((line) => !line.startsWith("#"))
    .map((line) => {
      const end = line.lastIndexOf(" ");
      const series = line.slice(0, end);
      return { series, name: series.split("{", 1)[0], value: Number(line.slice(end + 1)) };
    });
  const types = lines.flatMap((line): [string, string][] => {
    const [, name, type] = /^# TYPE (\S+) (\S+)$/.exec(line) ?? [];
    return name === undefined || type === undefined ? [] : [[name, type]];
  });
  return {
    value(name, labels = {}) {
      const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
      const found = samples.filter(
        (sample) => sample.name === name && wanted.every((label) => sample.series.includes(label)),
      );
      return found.length === 0 ? undefined : found.reduce((sum, sample) => sum + sample.value, 0);
    },
    series: samples.map(({ series }) => series),
    values: new Map(samples.map(({ series, value }) => [series, value])),
    types: new Map(types),
  };
}
