/** A port cannot be listened on. The message says why, and which variable to change. */
export class ListenError extends Error {
  override readonly name = "ListenError";
}

interface ListenTarget {
  readonly host: string;
  readonly port: number;
  /** The variables that set the two. */
  readonly variables: { readonly host: string; readonly port: string };
}

/** Awaits the start of a listener. Rejects with a `ListenError` if the host or the port cannot be used. */
export async function explainListenErrors<T>(target: ListenTarget, starting: Promise<T>): Promise<T> {
  try {
    return await starting;
  } catch (error) {
    const message = explain(target, error as NodeJS.ErrnoException);
    throw message === undefined ? error : new ListenError(message, { cause: error });
  }
}

function explain(
  target: ListenTarget,
  { code, syscall, message }: NodeJS.ErrnoException,
): string | undefined {
  const { host, port, variables } = target;
  if (syscall !== "listen" && syscall !== "getaddrinfo") {
    return undefined;
  }
  const failure = `Cannot listen on port ${port} of ${host} (${code}): `;
  switch (code) {
    case "EADDRINUSE":
      return (
        `${failure}another program listens there.\n` +
        `Stop it ("lsof -i :${port}" or "ss -ltnp" shows it), or set ${variables.port} to another port; 0 takes a free one.`
      );
    case "EACCES":
      return `${failure}this port needs privileges.\nSet ${variables.port} to a port above 1023.`;
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return (
        `${failure}this machine has no such address.\n` +
        `Set ${variables.host} to one of its addresses, 127.0.0.1 for this machine only, or 0.0.0.0 for all of them.`
      );
    default:
      return `${failure}${message}\n${variables.host} and ${variables.port} set the address.`;
  }
}
