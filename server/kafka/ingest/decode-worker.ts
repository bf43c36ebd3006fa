/** Entry of the worker thread that decodes large messages. */
import { parentPort } from "node:worker_threads";
import { decodeMessage } from "./decode.ts";
import { type DecodeRequest, type DecodeResponse, messageOf } from "./large-messages.ts";

parentPort?.on("message", (request: DecodeRequest) => {
  parentPort?.postMessage(decode(request));
});

function decode(request: DecodeRequest): DecodeResponse {
  try {
    return { decoded: decodeMessage(messageOf(request), request.subject) };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}
