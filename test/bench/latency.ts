import type { Bench } from "./bench-context.ts";
import { fillCatalog, productIdOf } from "./catalog.ts";
import { LoadProcess } from "./load/load-process.ts";
import type { Outcome } from "./outcome.ts";
import { startPinnedRedis, startService, whileWatching } from "./processes.ts";
import { type Turn, takeTurns, values, warmUp } from "./rounds.ts";
import { quantile } from "./statistics.ts";

const PRODUCTS = 1_000;
const PRODUCT_IDS = Array.from({ length: PRODUCTS }, (_, index) => productIdOf(index + 1));
const CALLERS = 50;
/** Shares of the capacity that the same round has measured. */
const LOADS = [0.3, 0.7];
const QUANTILES = { p50: 0.5, p99: 0.99, "p99.9": 0.999 } as const;

/** Latency of Reserve at fixed rates of arrival (open loop), from the time at which each call was due. */
export const measureLatency: Bench = async (context) => {
  await using servers = new AsyncDisposableStack();
  const redis = servers.use(await startPinnedRedis());
  await fillCatalog(redis.url, PRODUCTS);
  const service = servers.use(await startService(redis));
  const load = servers.use(new LoadProcess(context.signal));
  const { url } = service;
  const { seconds } = context;

  /** Reserves/s of callers that wait for each response (closed loop). */
  const measureCapacity = async (): Promise<Turn> => {
    const asked = {
      url,
      productIds: PRODUCT_IDS,
      callers: CALLERS,
      commits: false,
      seconds,
    };
    const { result, serverBusy } = await whileWatching(service, () => load.run("order", asked));
    return {
      value: result.answer.orders / result.answer.seconds,
      serverBusy,
      loadBusy: result.cpuSeconds / result.answer.seconds,
    };
  };
  let capacity = 0;
  const samples = LOADS.map(() => ({ p50: [] as number[], p99: [] as number[], "p99.9": [] as number[] }));
  const lateness: number[] = [];
  const arrive = async (index: number): Promise<Turn> => {
    const perSecond = capacity * (LOADS[index] ?? 0);
    const asked = { url, productIds: PRODUCT_IDS, perSecond, seconds };
    const { result, serverBusy } = await whileWatching(service, () => load.run("orderAtRate", asked));
    const { latenciesMs, refused, latenessMs } = result.answer;
    if (refused > 0) {
      context.note(`${refused} calls were refused and retried, which counts as their latency`);
    }
    for (const [name, share] of Object.entries(QUANTILES)) {
      samples[index]?.[name as keyof typeof QUANTILES].push(quantile(latenciesMs, share));
    }
    lateness.push(quantile(latenessMs, 0.99));
    return { value: perSecond, serverBusy, loadBusy: result.cpuSeconds / seconds };
  };
  await warmUp([measureCapacity], context.signal);
  const turns = await takeTurns(
    {
      capacity: async () => {
        const turn = await measureCapacity();
        capacity = turn.value;
        return turn;
      },
      "30% of it": () => arrive(0),
      "70% of it": () => arrive(1),
    },
    context,
  );
  context.note(
    `the generator sent a call at most ${Math.max(...lateness).toFixed(1)} ms late (p99 of a turn)`,
  );
  const outcomes: Outcome[] = [
    {
      what: `Capacity of Reserve, ${CALLERS} callers (closed loop)`,
      unit: "reserves/s",
      here: values(turns.capacity),
    },
  ];
  for (const [index, share] of LOADS.entries()) {
    const found = samples[index];
    const recorded = (name: keyof typeof QUANTILES): number[] => found?.[name].slice(-context.rounds) ?? [];
    const what = (name: string): string => `Reserve at ${share * 100}% of it (open loop), ${name}`;
    outcomes.push({ what: what("p50"), unit: "ms", here: recorded("p50") });
    outcomes.push({
      what: what("p99"),
      unit: "ms",
      here: recorded("p99"),
      peer: { name: "its p50", there: recorded("p50") },
      target: share === 0.7 ? { atMost: 5 } : undefined,
    });
    outcomes.push({ what: what("p99.9"), unit: "ms", here: recorded("p99.9") });
  }
  return outcomes;
};
