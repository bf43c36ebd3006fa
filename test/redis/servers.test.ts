import { pino } from "pino";
import { RedisStore } from "../../server/redis/store.ts";
import { describeReservationContract } from "../inventory/reservation-contract.ts";
import { describeStoreContract } from "../inventory/store-contract.ts";
import { describeStoresAgree } from "../inventory/stores-agree.ts";
import { need, REDIS_SERVERS } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";

// The contract of the store on the other servers that the service is deployed with; the other tests run on the system's
// Redis. `npm run test:redis` runs everything that needs Redis on each of them.

for (const server of REDIS_SERVERS) {
  const storeOnServer = async () => {
    const redis = await startRedis({ server });
    const store = new RedisStore({ endpoint: { url: redis.url }, log: pino({ level: "silent" }) });
    await store.start(5_000);
    return {
      store,
      close: async () => {
        await store.close();
        await redis.stop();
      },
    };
  };
  const options = { skip: need(server).missing || undefined };
  describeStoreContract(`RedisStore on ${server}`, storeOnServer, options);
  describeReservationContract(`RedisStore on ${server}`, storeOnServer, options);
  describeStoresAgree(`RedisStore on ${server}`, storeOnServer, options);
}
