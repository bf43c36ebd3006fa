import { ClusterPrimaries } from "./cluster-primaries.ts";
import type { ClusterEndpoint } from "./endpoint.ts";
import { OnePrimary, type PrimariesOptions } from "./one-primary.ts";
import type { Primaries } from "./primaries.ts";

/** The primaries of the endpoint. Those of a Cluster are shared by all that have the same endpoint. Connects on first use. */
export function openPrimaries(options: PrimariesOptions): Primaries {
  const { cluster } = options.endpoint;
  return cluster === undefined ? new OnePrimary(options) : shareCluster({ ...options, cluster });
}

const clusters = new WeakMap<ClusterEndpoint, ClusterPrimaries>();

function shareCluster(options: PrimariesOptions & { readonly cluster: ClusterEndpoint }): Primaries {
  let primaries = clusters.get(options.cluster);
  if (primaries === undefined || primaries.isClosed) {
    primaries = new ClusterPrimaries(options);
    clusters.set(options.cluster, primaries);
  }
  primaries.retain();
  return primaries;
}
