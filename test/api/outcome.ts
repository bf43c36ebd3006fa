import { createRegistry, type DescMethod, fromBinary, fromJsonString } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { BadRequestSchema } from "../../gen/google/rpc/error_details_pb.ts";
import type { Status } from "../../gen/google/rpc/status_pb.ts";

/** One invalid field, as google.rpc.BadRequest has it. */
export interface Violation {
  readonly field: string;
  readonly description: string;
}

/** How a call ended, in the words of the Connect protocol; `ok` if it succeeded. */
export interface Outcome {
  readonly status: number;
  readonly code: string;
  readonly message: string;
  readonly violations: readonly Violation[];
}

export type Encoding = "json" | "binary";

interface ErrorBody {
  readonly code: string;
  readonly message?: string;
  readonly details?: readonly {
    readonly type: string;
    readonly debug: { readonly fieldViolations: readonly Violation[] };
  }[];
}

const END_OF_STREAM = 2;
const SUBTYPES: Readonly<Record<Encoding, string>> = { json: "json", binary: "proto" };

/** Calls a method by the Connect protocol with these bytes as the message. Of a stream it reads the first envelope only. */
export async function call(
  url: string,
  method: DescMethod,
  encoding: Encoding,
  message: Uint8Array,
): Promise<Outcome> {
  const isUnary = method.methodKind === "unary";
  const subtype = SUBTYPES[encoding];
  const response = await fetch(`${url}/${method.parent.typeName}/${method.name}`, {
    method: "POST",
    headers: { "content-type": isUnary ? `application/${subtype}` : `application/connect+${subtype}` },
    body: new Uint8Array(isUnary ? message : envelope(message)),
  });
  if (response.ok && method.output.fields.some(({ name }) => name === "results")) {
    return await outcomeOfBatch(method, encoding, response);
  }
  return isUnary || !response.ok ? await outcomeOf(response) : await outcomeOfStream(response);
}

/** The outcome of the second request of a batch, as if it were that of the call, with the fields' paths in the batch. */
async function outcomeOfBatch(method: DescMethod, encoding: Encoding, response: Response): Promise<Outcome> {
  const bytes = new Uint8Array(await response.arrayBuffer());
  const registry = createRegistry(BadRequestSchema);
  const message =
    encoding === "json"
      ? fromJsonString(method.output, Buffer.from(bytes).toString(), { registry })
      : fromBinary(method.output, bytes);
  const results: { readonly error?: Status }[] = Reflect.get(message, "results");
  const error = results[1]?.error;
  if (error === undefined) {
    return { status: response.status, code: "ok", message: "", violations: [] };
  }
  const violations = error.details
    .flatMap((detail) => anyUnpack(detail, BadRequestSchema)?.fieldViolations ?? [])
    .map(({ field, description }) => ({ field: `requests[1].${field}`, description }));
  const code = (Code[error.code] ?? "").replace(/(?<=.)(?=[A-Z])/g, "_").toLowerCase();
  return { status: response.status, code, message: error.message, violations };
}

/** The outcome of a unary call. */
export async function outcomeOf(response: Response): Promise<Outcome> {
  if (response.ok) {
    await response.body?.cancel();
    return { status: response.status, code: "ok", message: "", violations: [] };
  }
  return { status: response.status, ...errorOf((await response.json()) as ErrorBody) };
}

async function outcomeOfStream(response: Response): Promise<Outcome> {
  const { status } = response;
  let bytes = Buffer.alloc(0);
  for await (const chunk of response.body ?? []) {
    bytes = Buffer.concat([bytes, chunk]);
    if (bytes.length >= 5 && bytes.length >= 5 + bytes.readUInt32BE(1)) {
      break;
    }
  }
  const body = JSON.parse(bytes[0] === END_OF_STREAM ? bytes.subarray(5).toString() : "{}") as {
    error?: ErrorBody;
  };
  return body.error === undefined
    ? { status, code: "ok", message: "", violations: [] }
    : { status, ...errorOf(body.error) };
}

function errorOf({ code, message = "", details }: ErrorBody): Omit<Outcome, "status"> {
  const detail = details?.find(({ type }) => type === "google.rpc.BadRequest");
  return { code, message, violations: detail?.debug.fieldViolations ?? [] };
}

function envelope(message: Uint8Array): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}
