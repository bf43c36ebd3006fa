import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Redis } from "ioredis";
import { pino } from "pino";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { BUCKETS_DEFAULT, Keys } from "../../server/redis/keys.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { inParallel } from "./in-parallel.ts";
import { untilDone } from "./load/caller.ts";

const IN_FLIGHT = 2_048;
const COLLECTIONS = 20;
/** Units of each product: more than any benchmark sells. */
export const UNITS = 1_000_000_000;

/** The IDs of the catalog: `product-0000001` and so on. */
export function productIdOf(n: number): string {
  return `product-${String(n).padStart(7, "0")}`;
}

export interface CatalogOptions {
  /** One in this number of products has no units. Unless given, all have. */
  readonly soldOutEvery?: number;
  /** The default of the service unless given. */
  readonly buckets?: number;
  /** Units of each product that is not sold out; `UNITS` unless given. */
  readonly units?: number;
}

/** Puts products, numbered from 1, into Redis through the service's own store, like sellers' events. */
export async function fillCatalog(
  redisUrl: string,
  products: number,
  { soldOutEvery = Number.POSITIVE_INFINITY, buckets = BUCKETS_DEFAULT, units = UNITS }: CatalogOptions = {},
): Promise<void> {
  const keys = new Keys(buckets);
  const store = new RedisStore({ endpoint: { url: redisUrl }, log: pino({ level: "silent" }), keys });
  const client = new Redis(redisUrl);
  const [, fsync = "always"] = await client.config("GET", "appendfsync").then((pair) => pair as string[]);
  try {
    await client.config("SET", "appendfsync", "no");
    await store.start(5_000);
    await inParallel(products, IN_FLIGHT, async (index) => {
      const n = index + 1;
      // A busy machine may refuse some; putting a product once more changes nothing.
      await untilDone(async () => {
        await store.putProduct({
          productId: productIdOf(n),
          details: detailsOf(n),
          declared: n % soldOutEvery === 0 ? 0 : units,
          updateTimeMicros: 1,
        });
      });
    });
  } finally {
    await client.config("SET", "appendfsync", fsync);
    client.disconnect();
    await store.close();
  }
}

/** Puts products, numbered from 1, through the API of a service, whatever store it has. */
export async function putCatalog(url: string, products: number): Promise<void> {
  const supply = createClient(SupplyService, createGrpcTransport({ baseUrl: url }));
  const requests = Array.from({ length: products }, (_, index) => ({
    productId: productIdOf(index + 1),
    declared: UNITS,
    product: detailsOf(index + 1),
    updateTime: timestampFromMs(1),
  }));
  const { results } = await supply.batchPutProducts({ requests });
  const failed = results.find(({ error }) => error !== undefined)?.error;
  if (failed !== undefined) {
    throw new Error(`A product was refused: ${failed.message}`);
  }
}

function detailsOf(n: number) {
  return {
    name: `${ADJECTIVES[n % ADJECTIVES.length]} ${NOUNS[n % NOUNS.length]} No. ${n}`,
    description: "Made of what lasts, by people who are paid for it. Washes at thirty degrees.",
    price: 5 + ((n * 7_919) % 20_000) / 100,
    collectionId: `collection-${n % COLLECTIONS}`,
  };
}

const ADJECTIVES = ["Enamel", "Stoneware", "Walnut", "Linen", "Brass", "Felt", "Copper"];
const NOUNS = ["Mug", "Bowl", "Board", "Apron", "Lamp", "Mat", "Pan", "Jug", "Tray", "Kettle", "Vase"];
