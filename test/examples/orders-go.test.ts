import { join } from "node:path";
import { describe } from "node:test";
import { need } from "../support/programs.ts";
import { buildDir, go, goMissing, notChosen, runOk } from "./example.ts";
import { testOrders } from "./orders.ts";

describe("examples/orders-go", { skip: notChosen || goMissing || need("redis-server").missing }, () => {
  testOrders({
    name: "orders-go",
    prepare: async () => {
      const program = join(buildDir, "orders-go");
      await runOk("orders-go", ["buf", "generate"]);
      await runOk("orders-go", [go, "vet", "."]);
      await runOk("orders-go", [go, "build", "-o", program, "."]);
      return [program];
    },
  });
});
