import {
  type DescMethod,
  fromBinary,
  fromJson,
  type JsonValue,
  type Message,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { GrpcWebClientBase, MethodDescriptor, type RpcError } from "grpc-web";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";

// Runs in the browser: the `grpc-web` client, as its generated stubs use it.

export interface Outcome {
  /** The messages of the response. */
  readonly messages: JsonValue[];
  /** The gRPC code. */
  readonly code: number;
  readonly text: string;
}

export interface StockClient {
  get(
    baseUrl: string,
    format: string,
    request: JsonValue,
    metadata?: Record<string, string>,
  ): Promise<Outcome>;
  /** Calls `globalThis.onMessage` with each message as it arrives, until it returns false. */
  watch(baseUrl: string, format: string, request: JsonValue): Promise<Outcome>;
}

type OnMessage = (message: JsonValue) => Promise<boolean>;

function descriptorOf(method: DescMethod): MethodDescriptor<Message, Message> {
  return new MethodDescriptor<Message, Message>(
    pathOf(method),
    method.methodKind,
    Object as never,
    Object as never,
    (request: Message) => toBinary(method.input, request),
    (bytes: Uint8Array) => fromBinary(method.output, bytes),
  );
}

function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

const { getStock, watchStock } = StockService.method;

const stockClient: StockClient = {
  async get(baseUrl, format, request, metadata = {}) {
    const client = new GrpcWebClientBase({ format });
    const message = fromJson(getStock.input, request);
    try {
      const response = await client.unaryCall(
        baseUrl + pathOf(getStock),
        message,
        metadata,
        descriptorOf(getStock),
      );
      return { messages: [toJson(getStock.output, response as never)], code: 0, text: "" };
    } catch (error) {
      const { code, message: text } = error as RpcError;
      return { messages: [], code, text };
    }
  },
  watch(baseUrl, format, request) {
    const client = new GrpcWebClientBase({ format });
    const message = fromJson(watchStock.input, request);
    const stream = client.serverStreaming(
      baseUrl + pathOf(watchStock),
      message,
      {},
      descriptorOf(watchStock),
    );
    const messages: JsonValue[] = [];
    const onMessage = Reflect.get(globalThis, "onMessage") as OnMessage;
    return new Promise((resolve) => {
      stream.on("data", (response) => {
        const json = toJson(watchStock.output, response as never);
        messages.push(json);
        void onMessage(json).then((isOpen) => {
          if (!isOpen) {
            stream.cancel();
            resolve({ messages, code: 0, text: "" });
          }
        });
      });
      stream.on("error", ({ code, message: text }) => resolve({ messages, code, text }));
      stream.on("end", () => resolve({ messages, code: 0, text: "" }));
    });
  },
};

Reflect.set(globalThis, "stockClient", stockClient);
