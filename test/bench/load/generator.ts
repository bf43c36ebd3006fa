import { JOBS, type JobName } from "./jobs.ts";

// The load generator: a process of its own, on its own core, that does the jobs it is sent and answers with what came of
// them. It ends with its parent.

/** A job by its number, as load-process.ts sends it. */
export interface JobMessage {
  readonly id: number;
  readonly name: JobName;
  readonly asked: never;
}

export interface AnswerMessage {
  readonly id: number;
  readonly answer?: unknown;
  readonly error?: string;
  /** Processor seconds that the job has taken of this process. */
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
