import { create, type MessageInitShape, toBinary, toJsonString } from "@bufbuild/protobuf";
import { Frame } from "../../server/rpc/fast-path/frame.ts";
import type { JsonOptions } from "../../server/rpc/fast-path/methods.ts";
import type { FrameEncoder, MessageSource, StreamCall } from "../../server/rpc/fast-path/stream-call.ts";
import type { StreamMethod } from "../../server/rpc/fast-path/stream-fast-path.ts";
import {
  ConformanceService,
  ServerStreamResponseSchema,
} from "./gen/connectrpc/conformance/v1/service_pb.ts";
import type { conformanceService } from "./service.ts";

type Response = MessageInitShape<typeof ServerStreamResponseSchema>;
type ServerStream = (typeof conformanceService)["serverStream"];

/** `ServerStream` on the fast path that WatchStock takes. */
export function serverStreamMethod(run: ServerStream, json: JsonOptions): StreamMethod {
  return {
    desc: ConformanceService.method.serverStream,
    open: (request, call) => {
      // Kept by the call once they were read. It drops the others before the generator reads them.
      void call.requestHeader;
      const responses = run(request as Parameters<ServerStream>[0], call as never);
      return new GeneratorSource(responses, call, json);
    },
  };
}

/** Sends what a generator yields. */
class GeneratorSource implements MessageSource, FrameEncoder<Response> {
  readonly #responses: AsyncIterable<Response>;
  readonly #call: StreamCall;
  readonly #json: JsonOptions;
  #onReady: () => void = () => {};
  #isClosed = false;

  constructor(responses: AsyncIterable<Response>, call: StreamCall, json: JsonOptions) {
    this.#responses = responses;
    this.#call = call;
    this.#json = json;
  }

  start(): void {
    this.#send().then(
      () => this.#call.end(),
      (error: unknown) => this.#call.fail(error),
    );
  }

  resume(): void {
    this.#onReady();
  }

  close(): void {
    this.#isClosed = true;
    this.#onReady();
  }

  async #send(): Promise<void> {
    for await (const response of this.#responses) {
      while (!this.#call.isReady && !this.#isClosed) {
        await new Promise<void>((resolve) => {
          this.#onReady = resolve;
        });
      }
      if (this.#isClosed) {
        return;
      }
      this.#call.write(response, this);
    }
  }

  encode(response: Response, isJson: boolean): Frame {
    const message = create(ServerStreamResponseSchema, response);
    return new Frame(
      isJson
        ? Buffer.from(toJsonString(ServerStreamResponseSchema, message, this.#json))
        : toBinary(ServerStreamResponseSchema, message),
    );
  }
}
