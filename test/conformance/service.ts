import { setTimeout as wait } from "node:timers/promises";
import { create, type DescMessage, type Message, type MessageShape } from "@bufbuild/protobuf";
import { type Any, anyPack } from "@bufbuild/protobuf/wkt";
import { ConnectError, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import type { CallContext } from "../../server/rpc/fast-path/methods.ts";
import {
  BidiStreamRequestSchema,
  ClientStreamRequestSchema,
  type ConformancePayload_RequestInfo,
  ConformancePayload_RequestInfoSchema,
  type ConformanceService,
  type Header,
  IdempotentUnaryRequestSchema,
  ServerStreamRequestSchema,
  type StreamResponseDefinition,
  UnaryRequestSchema,
  type UnaryResponseDefinition,
  type Error as WantedError,
} from "./gen/connectrpc/conformance/v1/service_pb.ts";

/** The parts of the call's context that the methods use. Only the Connect path has the URL; it handles every GET. */
type Context = CallContext & Partial<Pick<HandlerContext, "requestMethod" | "url">>;

interface Payload {
  readonly data?: Uint8Array;
  readonly requestInfo?: ConformancePayload_RequestInfo;
}

/**
 * The service that the conformance suite calls. Each request defines its response, and the response reports what was
 * received. `Unimplemented` is missing, as its contract requires.
 */
export const conformanceService = {
  async unary(request, context: Context) {
    const received = [anyPack(UnaryRequestSchema, request)];
    return { payload: await respondOnce(request.responseDefinition, received, context) };
  },

  async idempotentUnary(request, context: Context) {
    const received = [anyPack(IdempotentUnaryRequestSchema, request)];
    return { payload: await respondOnce(request.responseDefinition, received, context) };
  },

  async clientStream(requests, context) {
    const all = await readAll(requests);
    const received = all.map((each) => anyPack(ClientStreamRequestSchema, each));
    return { payload: await respondOnce(all[0]?.responseDefinition, received, context) };
  },

  async *serverStream(request, context) {
    const received = [anyPack(ServerStreamRequestSchema, request)];
    yield* respondMany(request.responseDefinition, received, context);
  },

  async *bidiStream(requests, context) {
    const iterator = requests[Symbol.asyncIterator]();
    const first = await iterator.next();
    if (first.done === true) return;
    const { responseDefinition, fullDuplex } = first.value;
    if (fullDuplex) {
      yield* respondInTurn(responseDefinition, first.value, iterator, context);
      return;
    }
    const rest = await readAll({ [Symbol.asyncIterator]: () => iterator });
    const received = [first.value, ...rest].map((each) => anyPack(BidiStreamRequestSchema, each));
    yield* respondMany(responseDefinition, received, context);
  },
} satisfies Partial<ServiceImpl<typeof ConformanceService>>;

async function respondOnce(
  definition: UnaryResponseDefinition | undefined,
  received: readonly Any[],
  context: Context,
): Promise<Payload> {
  const requestInfo = infoOf(received, context);
  if (definition === undefined) return { requestInfo };
  setMetadata(definition, context);
  await delay(definition.responseDelayMs, context);
  const { response } = definition;
  if (response.case === "error") throw errorOf(response.value, requestInfo);
  return response.case === "responseData" ? { requestInfo, data: response.value } : { requestInfo };
}

/** All responses after the request; the first reports what was received. */
async function* respondMany(
  definition: StreamResponseDefinition | undefined,
  received: readonly Any[],
  context: Context,
): AsyncGenerator<{ payload: Payload }> {
  if (definition === undefined) return;
  setMetadata(definition, context);
  const requestInfo = infoOf(received, context);
  for (const [index, data] of definition.responseData.entries()) {
    await delay(definition.responseDelayMs, context);
    yield { payload: index === 0 ? { data, requestInfo } : { data } };
  }
  if (definition.error !== undefined) {
    throw errorOf(definition.error, definition.responseData.length === 0 ? requestInfo : undefined);
  }
}

/** One response per request as it arrives. The remaining ones follow the last request. */
async function* respondInTurn<Request extends MessageShape<typeof BidiStreamRequestSchema>>(
  definition: StreamResponseDefinition | undefined,
  first: Request,
  requests: AsyncIterator<Request>,
  context: Context,
): AsyncGenerator<{ payload: Payload }> {
  if (definition === undefined) return;
  setMetadata(definition, context);
  let request: Request | undefined = first;
  for (const [index, data] of definition.responseData.entries()) {
    const received: Any[] = request === undefined ? [] : [anyPack(BidiStreamRequestSchema, request)];
    await delay(definition.responseDelayMs, context);
    const requestInfo =
      index === 0
        ? infoOf(received, context)
        : create(ConformancePayload_RequestInfoSchema, { requests: received });
    yield { payload: received.length === 0 ? { data } : { data, requestInfo } };
    if (request !== undefined) {
      const next = await requests.next();
      request = next.done === true ? undefined : next.value;
    }
  }
  if (definition.error !== undefined) {
    const isFirst = definition.responseData.length === 0;
    const received = [anyPack(BidiStreamRequestSchema, first)];
    throw errorOf(definition.error, isFirst ? infoOf(received, context) : undefined);
  }
}

async function readAll<T extends Message>(requests: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const request of requests) all.push(request);
  return all;
}

/** Reads the signal only where it waits: on the fast path, that creates an AbortController. */
async function delay(ms: number, context: Context): Promise<void> {
  if (ms > 0) await wait(ms, undefined, { signal: context.signal });
}

function infoOf(received: readonly Any[], context: Context): ConformancePayload_RequestInfo {
  const timeoutMs = context.timeoutMs();
  return create(ConformancePayload_RequestInfoSchema, {
    requestHeaders: [...context.requestHeader].map(([name, value]) => ({ name, value: [value] })),
    requests: [...received],
    ...(timeoutMs !== undefined && { timeoutMs: BigInt(Math.ceil(timeoutMs)) }),
    ...(context.requestMethod === "GET" && {
      connectGetInfo: { queryParams: queryOf(context.url ?? "") },
    }),
  });
}

function queryOf(url: string): { name: string; value: string[] }[] {
  return [...new URL(url).searchParams].map(([name, value]) => ({ name, value: [value] }));
}

function setMetadata(
  { responseHeaders, responseTrailers }: UnaryResponseDefinition | StreamResponseDefinition,
  context: Context,
): void {
  append(responseHeaders, context.responseHeader);
  append(responseTrailers, context.responseTrailer);
}

function append(wanted: readonly Header[], headers: Headers): void {
  for (const { name, value } of wanted) for (const each of value) headers.append(name, each);
}

function errorOf(wanted: WantedError, requestInfo: ConformancePayload_RequestInfo | undefined): ConnectError {
  // Both enumerations number the codes as gRPC does.
  const code: number = wanted.code;
  const error = new ConnectError(wanted.message ?? "", code);
  for (const { typeUrl, value } of wanted.details) {
    error.details.push({ type: typeUrl.slice(typeUrl.lastIndexOf("/") + 1), value });
  }
  if (requestInfo !== undefined) {
    error.details.push({ desc: ConformancePayload_RequestInfoSchema as DescMessage, value: requestInfo });
  }
  return error;
}
