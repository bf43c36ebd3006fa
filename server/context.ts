import type { Logger } from "pino";
import type { Config } from "./config.ts";
import type { VisitorLimits } from "./demo/visitor-reservations.ts";
import type { ListenerLimits } from "./http/listener/limits.ts";
import type { Releases } from "./lifecycle.ts";
import type { WatchLimits } from "./live/watch/watch-limits.ts";
import type { Health } from "./ops/health.ts";
import type { Metrics } from "./ops/metrics.ts";
import type { Tracing } from "./ops/tracing.ts";
import type { ImplementedService, JsonOptions } from "./rpc/fast-path/methods.ts";
import type { StreamMethod } from "./rpc/fast-path/stream-fast-path.ts";

/** Replacements by tests. */
export interface AppOptions {
  readonly limits?: Partial<ListenerLimits>;
  readonly watchLimits?: Partial<WatchLimits>;
  readonly visitorLimits?: Partial<VisitorLimits>;
  /** Whether the demo's shoppers change counts. True by default. */
  readonly demoShoppers?: boolean;
  readonly extraApi?: ExtraApi;
}

/** Services of a test, behind the same port, middleware and fast paths as those of this server. */
export interface ExtraApi {
  /** Replace services of the same name. */
  readonly services: readonly ImplementedService[];
  /** Their server-streaming methods on the fast path. */
  readonly streamMethods?: readonly StreamMethod[];
  readonly json?: JsonOptions;
  readonly requestBytesMax?: number;
}

/** Passed to the start of every part. */
export interface Context {
  readonly config: Config;
  readonly log: Logger;
  readonly options: AppOptions;
  /** Each part pushes its release here as soon as it has started. */
  readonly releases: Releases;
  readonly health: Health;
  readonly metrics: Metrics;
  readonly tracing: Tracing | undefined;
}
