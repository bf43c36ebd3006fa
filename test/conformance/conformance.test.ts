import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { need } from "../support/programs.ts";
import { runSuite } from "./suite.ts";

const suite = need("connectconformance");

/** A part that takes seconds, with every protocol and both HTTP versions. `npm run conformance` runs all cases. */
const PATTERNS = [
  ...["Basic", "Errors", "Duplicate Metadata", "Deadline Propagation", "Server Message Size"].map(
    (name) => `${name}/**/Compression:COMPRESSION_IDENTITY/TLS:false/**`,
  ),
  ...["Connect", "gRPC", "gRPC-Web"].map((protocol) => `${protocol} Unexpected Requests/**/TLS:false/**`),
];

describe("a part of the Connect conformance suite", { skip: suite.missing }, () => {
  it("passes, with the fast path on", async () => {
    const lines: string[] = [];
    const { passed, onFastPath, calls } = await runSuite({
      program: suite.path,
      fastPath: "on",
      args: PATTERNS.flatMap((pattern) => ["--run", pattern]),
      onLine: (line) => lines.push(line),
    });
    assert.ok(passed, lines.join("\n"));
    assert.ok(onFastPath > 0 && onFastPath < calls, `${onFastPath} of ${calls} calls came by a fast path`);
  });
});
