import { promisify } from "node:util";
import {
  create,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import {
  type handleUnaryCall,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  status,
} from "@grpc/grpc-js";
import { StockService } from "../../../gen/inventory/v1/stock_pb.ts";
import { Inventory } from "../../../gen/inventory_pb.ts";
import { readId } from "../../../server/api/fields.ts";
import { toStock } from "../../../server/api/messages.ts";
import { openLiveStore } from "./store.ts";

// @grpc/grpc-js on the service's store: checks the same field, reads the same mirror and encodes with protobuf-es.

const { live } = await openLiveStore();
const server = new Server();

serve(Inventory.method.get, async ({ id }) => {
  const { value } = await live.reads.getStock(readId("id", id));
  return { count: String(value.available) };
});
serve(StockService.method.getStock, async ({ productId }) => {
  const { value } = await live.reads.getStock(readId("product_id", productId));
  return { stock: toStock(value) };
});

await promisify(server.bindAsync.bind(server))(
  `127.0.0.1:${process.env["PORT"]}`,
  ServerCredentials.createInsecure(),
);

function serve<Method extends DescMethodUnary>(
  method: Method,
  answer: (request: MessageShape<Method["input"]>) => Promise<MessageInitShape<Method["output"]>>,
): void {
  const { input, output }: { input: Method["input"]; output: Method["output"] } = method;
  const definition: ServiceDefinition = {
    [method.name]: {
      path: `/${method.parent.typeName}/${method.name}`,
      requestStream: false,
      responseStream: false,
      requestSerialize: (message: MessageShape<Method["input"]>) => Buffer.from(toBinary(input, message)),
      requestDeserialize: (bytes: Buffer) => fromBinary(input, bytes),
      responseSerialize: (message: MessageShape<Method["output"]>) => Buffer.from(toBinary(output, message)),
      responseDeserialize: (bytes: Buffer) => fromBinary(output, bytes),
    },
  };
  const handle: handleUnaryCall<MessageShape<Method["input"]>, MessageShape<Method["output"]>> = (
    call,
    callback,
  ) => {
    answer(call.request).then(
      (message) => callback(null, create(output, message)),
      (error: unknown) => callback({ code: status.UNKNOWN, details: String(error) }),
    );
  };
  server.addService(definition, { [method.name]: handle });
}
