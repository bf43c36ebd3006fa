/** What a client may do: `orders` reserves and sells, `supply` declares and corrects stock, `ops` may do both. */
export const ROLES = ["orders", "supply", "ops"] as const;
export type Role = (typeof ROLES)[number];

/** An authenticated client. */
export interface Principal {
  /** The name of the token's entry, the JWT's subject, or the name in the certificate. Written to the log. */
  readonly name: string;
  readonly roles: ReadonlySet<Role>;
  readonly provenBy: "token" | "jwt" | "certificate";
}

export function isRole(value: unknown): value is Role {
  return ROLES.some((role) => role === value);
}
