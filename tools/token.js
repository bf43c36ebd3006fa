// Makes a token for a client: `npm run token -- orders-eu orders`, or
// `docker run --rm inventory:VERSION node tools/token.js orders-eu orders`.
//
// In JavaScript and without packages, so that it runs before `npm ci`, on a Node.js that cannot run TypeScript.

import { createHash, randomBytes } from "node:crypto";

/** As in server/access/principal.ts, which this file cannot import. */
const ROLES = ["orders", "supply", "ops"];
const TOKEN_BYTES = 32;

const [name = "", role = ""] = process.argv.slice(2);
if (!/^[\w.@/+-]{1,128}$/.test(name) || !ROLES.includes(role)) {
  process.stderr.write(
    `Usage: npm run token -- NAME ROLE\n` +
      `NAME has 1 to 128 of letters, digits and _.@/+-; ROLE is one of ${ROLES.join(", ")}.\n`,
  );
  process.exit(2);
}
const token = randomBytes(TOKEN_BYTES).toString("base64url");
const sha256 = createHash("sha256").update(token).digest("hex");
process.stdout.write(
  `The token, for the client to send as "authorization: Bearer TOKEN". It is not shown again:\n${token}\n` +
    `The entry for AUTH_TOKENS, or a line of AUTH_TOKENS_FILE:\n${name}:${role}:${sha256}\n`,
);
