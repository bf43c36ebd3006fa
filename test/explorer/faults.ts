import {
  type Attempt,
  Coordinator,
  type Outcome,
  type Protocol,
} from "../../server/inventory/sharded/coordinator.ts";
import type { Effect, Message, Reply } from "../../server/inventory/sharded/messages.ts";
import type { CommitRequest, ReserveRequest } from "../../server/inventory/store.ts";
import type { Bucket } from "../../server/memory/bucket.ts";
import type { Fault } from "./explorer.ts";

/** A fault and the scenario that shows it, by the start of its name. */
export interface SeededFault extends Fault {
  readonly scenario: string;
}

type Of<Name extends Message["step"]> = Extract<Message, { readonly step: Name }>;

/** A bucket that takes one kind of message otherwise. */
function mistaking<Name extends Message["step"]>(
  step: Name,
  take: (bucket: Bucket, message: Of<Name>) => Reply,
): (bucket: Bucket, message: Message) => Reply {
  return (bucket, message) =>
    message.step === step ? take(bucket, message as Of<Name>) : bucket.take(message);
}

/** Changes the messages and the replies of a protocol. */
function* mapped<T>(
  protocol: Protocol<T>,
  change: (message: Message) => Message,
  changeReply: (reply: Reply) => Reply = (reply) => reply,
): Protocol<T> {
  let next = protocol.next([]);
  while (next.done !== true) {
    try {
      next = protocol.next((yield next.value.map(change)).map(changeReply));
    } catch (error) {
      next = protocol.throw(error);
    }
  }
  return next.value;
}

const cancels = ({ reservationId, epoch, fingerprint }: Attempt, buckets: readonly number[]) =>
  buckets.map(
    (bucket) => ({ step: "cancel", bucket, reservationId, epoch, fingerprint, actor: undefined }) as const,
  );

export const FAULTS: readonly SeededFault[] = [
  {
    name: "holds are cancelled without a refusal",
    scenario: "retry",
    coordinator: class extends Coordinator {
      override *abandon(attempt: Attempt, buckets: readonly number[]): Protocol<void> {
        yield cancels(attempt, buckets);
      }
    },
  },
  {
    name: "a repair only reads the record, and does not refuse",
    scenario: "retry",
    coordinator: class extends Coordinator {
      readonly #homeOf: (id: string) => number;

      constructor(...[bucketOf, options]: ConstructorParameters<typeof Coordinator>) {
        super(bucketOf, options);
        this.#homeOf = bucketOf;
      }

      override *abandon(attempt: Attempt, buckets: readonly number[]): Protocol<void> {
        const { reservationId } = attempt;
        const [reply] = yield [{ step: "read", bucket: this.#homeOf(reservationId), reservationId }];
        yield* reply?.status === "absent"
          ? yielding(cancels(attempt, buckets))
          : super.abandon(attempt, buckets);
      }
    },
  },
  {
    name: "the home bucket forgets refusals",
    scenario: "retry",
    take: mistaking("refuse", (bucket, message) => {
      const reply = bucket.take(message);
      const entry = bucket.decisions.entries.get(message.reservationId);
      if (entry !== undefined && entry.record === undefined) {
        bucket.decisions.entries.delete(message.reservationId);
      }
      return reply;
    }),
  },
  {
    name: "a decision is made at any epoch",
    scenario: "retry",
    take: mistaking("decide", (bucket, message) => {
      const { refused = 0 } = bucket.decisions.entries.get(message.reservationId) ?? {};
      return bucket.take({ ...message, epoch: refused + 1 });
    }),
  },
  {
    name: "a hold of an earlier epoch replaces one of a later epoch",
    scenario: "reused ID: two contents under",
    take: mistaking("hold", (bucket, message) => {
      const known = bucket.holds.records.get(message.reservationId);
      if (known !== undefined && known.epoch > message.epoch) {
        known.epoch = message.epoch - 1;
      }
      return bucket.take(message);
    }),
  },
  {
    name: "a hold takes all lines again, and keeps those of the earlier epoch",
    scenario: "retry",
    take: mistaking("hold", (bucket, message) => {
      const known = bucket.holds.records.get(message.reservationId);
      if (known !== undefined && known.epoch < message.epoch) {
        known.targets = [];
      }
      return bucket.take(message);
    }),
  },
  {
    name: "a cancel ignores the epoch",
    scenario: "retry",
    take: mistaking("cancel", (bucket, message) => {
      const { epoch = message.epoch } = bucket.holds.records.get(message.reservationId) ?? {};
      return bucket.take({ ...message, epoch });
    }),
  },
  {
    name: "a cancel ignores the fingerprint",
    scenario: "reused ID: two contents under",
    take: mistaking("cancel", (bucket, message) => {
      const { fingerprint = "" } = bucket.holds.records.get(message.reservationId) ?? {};
      return bucket.take({ ...message, fingerprint });
    }),
  },
  {
    name: "a hold of the same epoch counts as own, whatever its fingerprint",
    scenario: "reused ID: two contents under",
    take: mistaking("hold", (bucket, message) => {
      const { epoch, fingerprint = "" } = bucket.holds.records.get(message.reservationId) ?? {};
      return bucket.take(epoch === message.epoch ? { ...message, fingerprint } : message);
    }),
  },
  {
    name: "an attempt with other contents counts as decided",
    scenario: "reused ID: two contents in different buckets",
    coordinator: class extends Coordinator {
      override abandon(attempt: Attempt, buckets: readonly number[]): Protocol<void> {
        return mapped(
          super.abandon(attempt, buckets),
          (message) => message,
          (reply) => (reply.status === "decided" ? { ...reply, fingerprint: attempt.fingerprint } : reply),
        );
      }
    },
  },
  {
    name: "effects are added, not set",
    scenario: "commit and release",
    take: mistaking("apply", (bucket, message) => {
      const { revision = 0, targets = [] } = bucket.holds.records.get(message.reservationId) ?? {};
      const soldOf = (productId: string) => targets.find((each) => each.productId === productId)?.sold ?? 0;
      const effects = message.effects.map((effect, n) => ({
        ...effect,
        revision: revision + n + 1,
        targets: effect.targets.map((target) => ({
          ...target,
          sold: target.sold + soldOf(target.productId),
        })),
      }));
      return bucket.take({ ...message, effects });
    }),
  },
  {
    name: "effects are applied whatever their revision",
    scenario: "return",
    take: mistaking("apply", (bucket, message) => {
      const known = bucket.holds.records.get(message.reservationId);
      if (known !== undefined) {
        known.revision = -1;
      }
      return bucket.take(message);
    }),
  },
  {
    name: "a repeated effect makes a hold look decided",
    scenario: "late commit: two in different buckets",
    take: mistaking("apply", (bucket, message) => {
      const reply = bucket.take(message);
      const { epoch = 0 } = bucket.holds.records.get(message.reservationId) ?? {};
      if ((message.effects.at(-1)?.epoch ?? 0) >= epoch) {
        bucket.holds.undecided.delete(message.reservationId);
      }
      return reply;
    }),
  },
  {
    name: "effects are settled before they are applied",
    scenario: "commit and release",
    coordinator: class extends Coordinator {
      override *settle(reservationId: string, effects: readonly Effect[]): Protocol<void> {
        const protocol = super.settle(reservationId, effects);
        const steps: (readonly Message[])[] = [];
        for (let next = protocol.next([]); next.done !== true; next = protocol.next([])) {
          steps.unshift(next.value);
        }
        for (const messages of steps) {
          yield messages;
        }
      }
    },
  },
  {
    name: "a late commit holds without the effects of the expiry",
    scenario: "late commit",
    coordinator: class extends Coordinator {
      override commit(request: CommitRequest): Protocol<Outcome> {
        return mapped(super.commit(request), (message) =>
          message.step === "hold" ? { ...message, effects: [] } : message,
        );
      }
    },
  },
  {
    name: "a late commit revives what was released",
    scenario: "late commit: two with other quantities",
    take: mistaking("revive", (bucket, message) => {
      const { record } = bucket.decisions.entries.get(message.reservationId) ?? {};
      if (record?.state === "released") {
        record.state = "expired";
      }
      return bucket.take(message);
    }),
  },
  {
    name: "a late commit revives at any epoch",
    scenario: "late commit: two with other quantities",
    take: mistaking("revive", (bucket, message) => {
      const { refused = 0, record } = bucket.decisions.entries.get(message.reservationId) ?? {};
      return bucket.take({ ...message, epoch: Math.max(refused, record?.epoch ?? 0) + 1 });
    }),
  },
  {
    name: "a repeated revival is refused",
    scenario: "late commit: the reply",
    take: mistaking("revive", (bucket, message) => {
      const { refused = 0, record } = bucket.decisions.entries.get(message.reservationId) ?? {};
      return record?.state === "committed"
        ? { status: "refused", nextEpoch: Math.max(refused, record.epoch) + 1 }
        : bucket.take(message);
    }),
  },
  {
    name: "a later attempt holds before it has read the record",
    scenario: "reused ID: two contents under",
    coordinator: class extends Coordinator {
      override *reserve(request: ReserveRequest): Protocol<Outcome> {
        const protocol = super.reserve(request);
        let holds: Message[] = [];
        let epoch: number | undefined;
        let next = protocol.next([]);
        while (next.done !== true) {
          const messages = next.value;
          const isRead = messages.length === 1 && messages[0]?.step === "read";
          const early = isRead && epoch ? holds.map((hold) => ({ ...hold, epoch }) as Message) : [];
          const replies = yield [...messages, ...early];
          const [first] = replies;
          epoch = first?.status === "refused" ? first.nextEpoch : undefined;
          holds = messages.some(({ step }) => step === "hold")
            ? messages.filter(({ step }) => step === "hold")
            : holds;
          next = protocol.next(replies.slice(0, messages.length));
        }
        return next.value;
      }
    },
  },
  {
    name: "a repair forgets what it does not know",
    scenario: "retry",
    take: mistaking("cancel", (bucket, message) => {
      bucket.holds.undecided.delete(message.reservationId);
      return { status: "ok" };
    }),
  },
];

function* yielding(messages: readonly Message[]): Protocol<void> {
  yield messages;
}
