import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { need } from "./programs.ts";

const run = promisify(execFile);
const KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/** Paths and contents of a certificate and its key, PEM. */
export interface Certificate {
  readonly certFile: string;
  readonly keyFile: string;
  readonly cert: Buffer;
  readonly key: Buffer;
}

/** A certificate authority of a test's own, made with openssl; its files go with it. */
export interface Authority extends AsyncDisposable, Certificate {
  /** A certificate with this common name, and subject names such as `DNS:localhost,URI:spiffe://shop/orders`. */
  issue(commonName: string, alternativeNames?: string): Promise<Certificate>;
}

export async function createAuthority(): Promise<Authority> {
  const openssl = need("openssl").path;
  const dir = await mkdtemp(join(tmpdir(), "inventory-ca-"));
  let issued = 0;
  const make = async (name: string, args: readonly string[]): Promise<Certificate> => {
    const [certFile, keyFile] = [join(dir, `${name}.pem`), join(dir, `${name}.key`)];
    await run(openssl, ["req", "-x509", "-days", "2", ...KEY, ...args, "-keyout", keyFile, "-out", certFile]);
    return { certFile, keyFile, cert: await readFile(certFile), key: await readFile(keyFile) };
  };
  const own = await make("ca", ["-subj", "/CN=Test authority"]);
  return {
    ...own,
    issue: (commonName, alternativeNames) => {
      issued += 1;
      return make(`leaf-${issued}`, [
        ...["-subj", `/CN=${commonName}`, "-CA", own.certFile, "-CAkey", own.keyFile],
        ...["-addext", "basicConstraints=critical,CA:FALSE"],
        ...(alternativeNames === undefined ? [] : ["-addext", `subjectAltName=${alternativeNames}`]),
      ]);
    },
    [Symbol.asyncDispose]: () => rm(dir, { recursive: true, force: true }),
  };
}
