import { describe } from "node:test";
import { need } from "../support/programs.ts";
import { runOk } from "./example.ts";
import { testOrders } from "./orders.ts";

describe("examples/orders-ts", { skip: need("redis-server").missing }, () => {
  testOrders({
    name: "orders-ts",
    prepare: async () => {
      await runOk("orders-ts", ["buf", "generate"]);
      return [process.execPath, "main.ts"];
    },
  });
});
