import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
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

/** A certificate authority for a test, made with openssl. Disposing it removes its files. */
export interface Authority extends AsyncDisposable, Certificate {
  /** A certificate with this common name, and subject names such as `DNS:localhost,URI:spiffe://shop/orders`. */
  issue(commonName: string, alternativeNames?: string): Promise<Certificate>;
  /** A certificate that is valid between two times. */
  issueBetween(commonName: string, from: Date, to: Date): Promise<Certificate>;
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
    async issueBetween(commonName, from, to) {
      issued += 1;
      const file = (extension: string): string => join(dir, `leaf-${issued}.${extension}`);
      const [certFile, keyFile] = [file("pem"), file("key")];
      const config = file("cnf");
      await writeFile(file("db"), "");
      await writeFile(config, caConfig(file("db"), dir));
      await run(openssl, [
        "req",
        "-new",
        ...KEY,
        "-subj",
        `/CN=${commonName}`,
        "-keyout",
        keyFile,
        "-out",
        file("csr"),
      ]);
      await run(openssl, [
        ...["ca", "-batch", "-notext", "-config", config, "-cert", own.certFile, "-keyfile", own.keyFile],
        ...["-startdate", asn1TimeOf(from), "-enddate", asn1TimeOf(to), "-in", file("csr"), "-out", certFile],
      ]);
      return { certFile, keyFile, cert: await readFile(certFile), key: await readFile(keyFile) };
    },
    [Symbol.asyncDispose]: () => rm(dir, { recursive: true, force: true }),
  };
}

/** `openssl req` has no option for a start date before OpenSSL 3.4, but `openssl ca` has. */
function caConfig(database: string, newCertsDir: string): string {
  return [
    "[ca]",
    "default_ca = own",
    "[own]",
    `database = ${database}`,
    `new_certs_dir = ${newCertsDir}`,
    "rand_serial = yes",
    "default_md = sha256",
    "policy = any",
    "[any]",
    "commonName = supplied",
    "",
  ].join("\n");
}

/** `20261128083000Z` */
function asn1TimeOf(date: Date): string {
  return date.toISOString().replace(/[-:T]|\.\d+/g, "");
}
