import { JOBS, type JobName } from "./jobs.ts";

// The load generator: a separate process on its own core that runs the jobs it receives and sends their results. It ends with
// its parent.

/** A numbered job from load-process.ts. */
export interface JobMessage {
  readonly id: number;
  readonly name: JobName;
  readonly asked: never;
}

export interface AnswerMessage {
  readonly id: number;
  readonly answer?: unknown;
  readonly error?: string;
  /** CPU seconds of this process for the job. */
  readonly cpuSeconds: number;
}

process.on("disconnect", () => process.exit());
process.on("message", ({ id, name, asked }: JobMessage) => {
  const before = process.cpuUsage();
  const answer = (message: Pick<AnswerMessage, "answer" | "error">): void => {
    const { user, system } = process.cpuUsage(before);
    process.send?.({ id, ...message, cpuSeconds: (user + system) / 1_000_000 } satisfies AnswerMessage);
  };
  JOBS[name](asked).then(
    (result) => answer({ answer: result }),
    (error: unknown) => answer({ error: error instanceof Error ? error.message : String(error) }),
  );
});
