import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { parse } from "yaml";
import { INVENTORY_SERVICES } from "../../server/api/services.ts";

const FOLDER = join(import.meta.dirname, "../../deploy/edge");

describe("the configuration files of the edges", () => {
  for (const name of ["Caddyfile", "nginx.conf", "envoy.yaml", "haproxy.cfg"]) {
    it(`${name} lists every service of the server, as allowed or as refused`, async () => {
      const text = await readFile(join(FOLDER, name), "utf8");
      for (const { typeName } of INVENTORY_SERVICES) {
        // As a whole word: in regular expressions it has backslashes and brackets around it.
        const word = typeName.split(".").at(-1);
        assert.match(text, new RegExp(`\\b${word}\\b`), typeName);
      }
    });
  }

  it("envoy.yaml is YAML with one listener, a cluster for shoppers and one for Orders", async () => {
    const { static_resources: resources } = parse(await readFile(join(FOLDER, "envoy.yaml"), "utf8"));
    assert.equal(resources.listeners.length, 1);
    assert.deepEqual(
      resources.clusters.map(({ name }: { name: string }) => name),
      ["inventory", "inventory-orders"],
    );
  });
});
