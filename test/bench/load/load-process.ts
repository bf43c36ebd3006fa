import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { pinned } from "../processes.ts";
import type { AnswerMessage } from "./generator.ts";
import type { JobName, Jobs } from "./jobs.ts";

/** Timeout of a job. The longest is 30 changes to 5,000 watchers of a slow server. */
const JOB_MS_MAX = 180_000;
const GENERATOR = join(import.meta.dirname, "generator.ts");

/** The result of a job, and its CPU time in the load generator. */
export interface Done<Name extends JobName> {
  readonly answer: Jobs[Name]["answer"];
  readonly cpuSeconds: number;
}

/** The project's load generator, in a process on the core of load generators. */
export class LoadProcess implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #open = new Map<number, PromiseWithResolvers<AnswerMessage>>();
  #jobs = 0;

  /** Aborting the signal ends the process and every job. */
  constructor(signal: AbortSignal) {
    const [command = "", ...args] = pinned("load", [process.execPath, GENERATOR]);
    this.#child = spawn(command, args, { stdio: ["ignore", "inherit", "inherit", "ipc"], detached: true });
    const kill = (): boolean => this.#child.kill("SIGKILL");
    signal.addEventListener("abort", kill, { once: true });
    this.#child.on("message", (message: AnswerMessage) => {
      this.#open.get(message.id)?.resolve(message);
      this.#open.delete(message.id);
    });
    this.#child.once("exit", () => {
      signal.removeEventListener("abort", kill);
      for (const job of this.#open.values()) {
        job.reject(new Error("The load generator has ended"));
      }
    });
  }

  /** Rejects with the error of the job. */
  async run<Name extends JobName>(name: Name, asked: Jobs[Name]["asked"]): Promise<Done<Name>> {
    const id = ++this.#jobs;
    const job = Promise.withResolvers<AnswerMessage>();
    this.#open.set(id, job);
    this.#child.send({ id, name, asked });
    const tooLate = setTimeout(
      () => job.reject(new Error(`${name}: not done within ${JOB_MS_MAX / 1_000} s`)),
      JOB_MS_MAX,
    );
    const { answer, error, cpuSeconds } = await job.promise.finally(() => clearTimeout(tooLate));
    if (error !== undefined) {
      throw new Error(`${name}: ${error}`);
    }
    return { answer: answer as Jobs[Name]["answer"], cpuSeconds };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const exited = once(this.#child, "exit");
      this.#child.kill("SIGKILL");
      await exited;
    }
  }
}
