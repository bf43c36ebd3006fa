import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { need } from "../support/programs.ts";
import { runSuite } from "./suite.ts";

const suite = need("connectconformance");

/** A part that takes seconds, of every protocol and both HTTP versions; `npm run conformance` runs all. */
const PATTERNS = [
  ...["Basic", "Errors", "Duplicate Metadata", "Deadline Propagation", "Server Message Size"].map(
    (name) => `${name}/**/Compression:COMPRESSION_IDENTITY/TLS:false/**`,
  ),
  ...["Connect", "gRPC", "gRPC-Web"].map((protocol) => `${protocol} Unexpected Requests/**/TLS:false/**`),
];

describe("a part of the Connect conformance suite", { skip: suite.missing }, () => {
  it("passes, on the lane and the long way together", async () => {
    const lines: string[] = [];
    const { passed, taken, requests } = await runSuite({
      program: suite.path,
      lane: "on",
      args: PATTERNS.flatMap((pattern) => ["--run", pattern]),
      onLine: (line) => lines.push(line),
    });
    assert.ok(passed, lines.join("\n"));
    assert.ok(taken > 0 && taken < requests, `the lane took ${taken} of ${requests}`);
  });
});
