/** What a caller may do: Orders reserves and sells, supply tells what there is, ops does both. */
export const ROLES = ["orders", "supply", "ops"] as const;
export type Role = (typeof ROLES)[number];

/** A caller whose name is proven. */
export interface Principal {
  /** As the token's entry, the JWT's subject, or the certificate names it. Goes into the log. */
  readonly name: string;
  readonly roles: ReadonlySet<Role>;
  readonly provenBy: "token" | "jwt" | "certificate";
}

export function isRole(value: unknown): value is Role {
  return ROLES.some((role) => role === value);
}
