/** Requests that a thread of libuv's pool carries out, as `process.getActiveResourcesInfo` names them. */
const POOL_REQUESTS = new Set(["GetAddrInfoReqWrap", "GetNameInfoReqWrap", "FSReqCallback", "FSReqPromise"]);

/**
 * Ends the process at once. `process.exit` waits for the threads of libuv's pool, and getaddrinfo(3) keeps one for as long as
 * name servers do not answer: 10 s and more, which is longer than a container has. Then the process is replaced by one that exits.
 * A process that is profiled is not replaced: Node writes the profile in `process.exit`.
 */
export function exitNow(code: number): never {
  if (
    process.execve !== undefined &&
    !process.execArgv.some((argument) => argument.startsWith("--cpu-prof")) &&
    process.getActiveResourcesInfo().some((name) => POOL_REQUESTS.has(name))
  ) {
    process.execve(process.execPath, [process.execPath, "--eval", `process.exit(${code})`], {});
  }
  process.exit(code);
}
