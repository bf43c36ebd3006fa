import type { Client } from "@connectrpc/connect";
import { createSchema } from "graphql-yoga";
import type { StockService } from "./gen/inventory/v1/stock_pb.ts";
import type { StockLoader } from "./remaining-stock.ts";
import { type Product, search } from "./search-index.ts";
import { watchStock } from "./watch-stock.ts";

export interface Context {
  readonly request: Request;
  readonly stock: Client<typeof StockService>;
  readonly stockLoader: StockLoader;
}

const typeDefs = /* GraphQL */ `
  type Query {
    products(search: String! = ""): [Product!]!
  }

  type Subscription {
    "The state of these products first, then every change. A storm of changes is thinned out; the newest state arrives."
    remainingStock(productIds: [ID!]!): [StockChange!]!
  }

  type Product {
    id: ID!
    name: String!
    "Null without an error: not for sale. Null with an error: cannot be read now."
    remainingStock: RemainingStock
  }

  type RemainingStock {
    "Units that can be bought."
    units: Int!
    "True if units may be out of date. Show it as an estimate; do not promise it."
    stale: Boolean!
    "A 64-bit number. Drop a state whose version is not newer."
    version: String!
    "RFC 3339."
    updateTime: String
  }

  type StockChange {
    productId: ID!
    "Null: not for sale."
    remainingStock: RemainingStock
  }
`;

/** Yoga's signal, which ends with the subscriber's connection, is a class of its own that Node.js's functions refuse. */
function toAbortSignal(signal: AbortSignal): AbortSignal {
  const controller = new AbortController();
  signal.addEventListener("abort", () => controller.abort(), { once: true });
  return controller.signal;
}

export const schema = createSchema<Context>({
  typeDefs,
  resolvers: {
    Query: {
      products: (_, args: { search: string }) => search(args.search),
    },
    Product: {
      remainingStock: ({ id }: Product, _, { stockLoader }) => stockLoader.load(id),
    },
    RemainingStock: {
      version: ({ version }: { version: bigint }) => String(version),
      updateTime: ({ updateTime }: { updateTime: Date | undefined }) => updateTime?.toISOString(),
    },
    Subscription: {
      remainingStock: {
        subscribe: (_, args: { productIds: string[] }, { stock, request }) =>
          watchStock(stock, args.productIds, toAbortSignal(request.signal)),
        resolve: (changes: unknown) => changes,
      },
    },
  },
});
