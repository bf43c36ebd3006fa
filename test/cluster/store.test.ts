import { after } from "node:test";
import { describeBulkContract } from "../inventory/bulk-contract.ts";
import { describeHistoryContract } from "../inventory/history-contract.ts";
import { describeReservationContract } from "../inventory/reservation-contract.ts";
import { describeStoreContract } from "../inventory/store-contract.ts";
import { describeStoresAgree } from "../inventory/stores-agree.ts";
import { need } from "../support/programs.ts";
import { ClusterPool } from "./cluster-stores.ts";

// The contract of the store on a Redis Cluster of three primaries; CLUSTER_REPLICAS=1: of three primaries with a replica each.

const pool = new ClusterPool();
const options = { skip: need("redis-server").missing || undefined };

after(() => pool[Symbol.asyncDispose]());

describeStoreContract("RedisStore on a Cluster", pool.makeStore, options);
describeReservationContract("RedisStore on a Cluster", pool.makeStore, options);
describeBulkContract("RedisStore on a Cluster", pool.makeStore, options);
describeHistoryContract("RedisStore on a Cluster", pool.makeStore, options);
describeStoresAgree("RedisStore on a Cluster", pool.makeStore, { ...options, programs: 60 });
