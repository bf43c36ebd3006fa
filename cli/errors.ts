import { Code, ConnectError } from "@connectrpc/connect";
import { printable } from "./output/text.ts";

/** The exit codes, as docs/command-line.md documents them. */
export const EXIT = {
  ok: 0,
  /** Refused by the server, or failed. Of an import: at least one row failed. */
  failed: 1,
  /** The arguments are invalid, or a confirmation is missing. Nothing was changed. */
  usage: 2,
  /** The server or its store is unavailable, or did not respond in time. */
  unavailable: 3,
  /** The credentials are missing, invalid or not sufficient. */
  denied: 4,
  /** SIGINT, as shells report it: 128 + 2. */
  interrupted: 130,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** An error with a message for the user and an exit code. */
export class CommandError extends Error {
  override readonly name = "CommandError";
  readonly exitCode: ExitCode;

  constructor(message: string, exitCode: ExitCode = EXIT.failed) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** The arguments are invalid. */
export function usageError(message: string): CommandError {
  return new CommandError(message, EXIT.usage);
}

/** CANCELED: the connection was lost. Commands cancel no call whose error they report. */
const UNAVAILABLE: readonly Code[] = [
  Code.Unavailable,
  Code.DeadlineExceeded,
  Code.ResourceExhausted,
  Code.Canceled,
];
const DENIED: readonly Code[] = [Code.Unauthenticated, Code.PermissionDenied];

export function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof CommandError) return error.exitCode;
  if (!(error instanceof ConnectError)) return EXIT.failed;
  if (networkMessage(error) !== undefined) return EXIT.unavailable;
  if (UNAVAILABLE.includes(error.code)) return EXIT.unavailable;
  return DENIED.includes(error.code) ? EXIT.denied : EXIT.failed;
}

/** The error in one line: the code of the call as gRPC spells it, and the server's message, which names field, value and bound. */
export function describeError(error: unknown, url: string): string {
  if (!(error instanceof ConnectError)) {
    return printable(error instanceof Error ? error.message : String(error));
  }
  const network = networkMessage(error);
  if (network !== undefined) {
    // Whatever code the transport gives, such as INTERNAL for a certificate that is not trusted.
    return printable(
      `UNAVAILABLE: ${url} cannot be reached: ${network}; --url or INVENTORY_URL sets the address`,
    );
  }
  const hint =
    error.code === Code.Unauthenticated
      ? "; INVENTORY_TOKEN or --token-file gives the token, --cert-file and --key-file a client certificate"
      : "";
  return printable(`${codeName(error.code)}: ${error.rawMessage || "no message"}${hint}`);
}

/** `InvalidArgument` as `INVALID_ARGUMENT`. */
export function codeName(code: number): string {
  const name = Code[code] ?? `CODE_${code}`;
  return name.replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
}

/** Why no connection could be made, if that is the cause. */
function networkMessage(error: ConnectError): string | undefined {
  let cause: unknown = error.cause;
  for (let depth = 0; depth < 4 && cause instanceof Error; depth += 1) {
    // Several addresses of a name were tried. Only the single errors have a message.
    if (cause instanceof AggregateError) {
      return cause.errors
        .map((each: unknown) => (each instanceof Error ? each.message : String(each)))
        .join(", ");
    }
    if (
      "syscall" in cause ||
      "library" in cause ||
      ("code" in cause && /CERT|TLS|SSL/.test(String(cause.code)))
    ) {
      return cause.message;
    }
    cause = cause.cause;
  }
  return undefined;
}
