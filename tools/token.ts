import { createHash, randomBytes } from "node:crypto";
import { ROLES } from "../server/access/principal.ts";

// Makes a token for a caller: `npm run token -- orders-eu orders`.

const TOKEN_BYTES = 32;

const [name = "", role = ""] = process.argv.slice(2);
if (!/^[\w.@/+-]{1,128}$/.test(name) || !ROLES.some((known) => known === role)) {
  process.stderr.write(`Usage: npm run token -- NAME ROLE, a role being one of ${ROLES.join(", ")}\n`);
  process.exit(2);
}
const token = randomBytes(TOKEN_BYTES).toString("base64url");
const sha256 = createHash("sha256").update(token).digest("hex");
process.stdout.write(
  `For the caller, who sends it as authorization: Bearer …; it is shown only once:\n${token}\n` +
    `For AUTH_TOKENS, or a line of AUTH_TOKENS_FILE:\n${name}:${role}:${sha256}\n`,
);
