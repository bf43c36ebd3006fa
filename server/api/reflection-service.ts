import { type DescFile, type DescMessage, type DescService, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code, type ConnectRouter } from "@connectrpc/connect";
import { ServerReflection } from "../../gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "../../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { show } from "../inventory/validation.ts";

/**
 * gRPC server reflection, v1 and v1alpha, which differ only in their package
 * (https://github.com/grpc/grpc/blob/master/doc/server-reflection.md). The descriptors are those of
 * the generated code that the server uses. `details` are the messages of error details, which no method refers to.
 */
export function registerReflection(
  router: ConnectRouter,
  services: readonly DescService[],
  details: readonly DescMessage[],
): void {
  const index = new DescriptorIndex([...services, ServerReflection, ServerReflectionAlpha], details);
  router.service(ServerReflection, {
    async *serverReflectionInfo(requests) {
      for await (const request of requests) {
        yield {
          validHost: request.host,
          originalRequest: request,
          messageResponse: index.respond(request.messageRequest),
        };
      }
    },
  });
  router.service(ServerReflectionAlpha, {
    async *serverReflectionInfo(requests) {
      for await (const request of requests) {
        yield {
          validHost: request.host,
          originalRequest: request,
          messageResponse: index.respond(request.messageRequest),
        };
      }
    },
  });
}

/** The query of a reflection request, in either version. */
interface Query {
  readonly case: string | undefined;
  readonly value?: unknown;
}

class DescriptorIndex {
  readonly #services: readonly DescService[];
  readonly #fileByName = new Map<string, DescFile>();
  readonly #fileBySymbol = new Map<string, DescFile>();

  constructor(services: readonly DescService[], details: readonly DescMessage[]) {
    this.#services = services;
    for (const { file } of [...services, ...details]) {
      this.#addFile(file);
    }
  }

  respond({ case: kind, value }: Query) {
    if (kind === "listServices") {
      const names = this.#services.map((service) => ({ name: service.typeName }));
      return { case: "listServicesResponse" as const, value: { service: names } };
    }
    if (kind === "fileByFilename" && typeof value === "string") {
      return this.#files(this.#fileByName.get(value), `file ${show(value)}`);
    }
    if (kind === "fileContainingSymbol" && typeof value === "string") {
      return this.#files(this.#fileBySymbol.get(value.replace(/^\./, "")), `symbol ${show(value)}`);
    }
    if (kind === "allExtensionNumbersOfType" && typeof value === "string" && this.#fileBySymbol.has(value)) {
      return {
        case: "allExtensionNumbersResponse" as const,
        value: { baseTypeName: value, extensionNumber: [] },
      };
    }
    // The served files have no extensions.
    return this.#files(undefined, kind ?? "a request without a query");
  }

  /** A file with all its transitive imports, so that a client needs one request. */
  #files(file: DescFile | undefined, queried: string) {
    if (file === undefined) {
      return {
        case: "errorResponse" as const,
        value: { errorCode: Code.NotFound, errorMessage: `Not found: ${queried}` },
      };
    }
    const closure = new Set<DescFile>();
    const visit = (visited: DescFile): void => {
      if (!closure.has(visited)) {
        closure.add(visited);
        visited.dependencies.forEach(visit);
      }
    };
    visit(file);
    const fileDescriptorProto = [...closure].map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
    return { case: "fileDescriptorResponse" as const, value: { fileDescriptorProto } };
  }

  #addFile(file: DescFile): void {
    if (this.#fileByName.has(file.proto.name)) {
      return;
    }
    this.#fileByName.set(file.proto.name, file);
    file.dependencies.forEach((dependency) => {
      this.#addFile(dependency);
    });
    for (const service of file.services) {
      this.#fileBySymbol.set(service.typeName, file);
      for (const method of service.methods) {
        this.#fileBySymbol.set(`${service.typeName}.${method.name}`, file);
      }
    }
    const addMessages = (messages: DescFile["messages"]): void => {
      for (const message of messages) {
        this.#fileBySymbol.set(message.typeName, file);
        for (const member of message.members) {
          this.#fileBySymbol.set(`${message.typeName}.${member.name}`, file);
        }
        for (const nested of message.nestedEnums) {
          this.#fileBySymbol.set(nested.typeName, file);
        }
        addMessages(message.nestedMessages);
      }
    };
    addMessages(file.messages);
    for (const enumeration of file.enums) {
      this.#fileBySymbol.set(enumeration.typeName, file);
    }
  }
}
