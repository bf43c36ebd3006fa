import type { DeleteCollectionRequest, PutCollectionRequest } from "../../gen/inventory/v1/supply_pb.ts";
import type { CollectionEvent } from "../inventory/collection.ts";
import type { InventoryStore } from "../inventory/store.ts";
import { DESCRIPTION_BYTES_MAX, NAME_BYTES_MAX, Violations } from "../inventory/validation.ts";
import { readEventTime } from "./fields.ts";

/** The methods of SupplyService for collections. The rules are those of the sellers' events from Kafka. */
export function collectionMethods(store: InventoryStore) {
  return {
    async putCollection(request: PutCollectionRequest) {
      const { applied } = await store.putCollection(readPutCollection(request));
      return { applied };
    },
    async deleteCollection(request: DeleteCollectionRequest) {
      const { applied } = await store.putCollection(readDeleteCollection(request));
      return { applied };
    },
  };
}

function readPutCollection({ collection, updateTime }: PutCollectionRequest): CollectionEvent {
  const violations = new Violations();
  if (collection === undefined) {
    violations.add("collection", "is absent; give a collection with collection_id and name");
    violations.throwIfAny();
  }
  const { collectionId = "", name = "", description = "" } = collection ?? {};
  violations.id("collection.collection_id", collectionId);
  violations.text("collection.name", name, NAME_BYTES_MAX);
  if (name === "") {
    violations.add("collection.name", `is empty; give 1 to ${NAME_BYTES_MAX} bytes`);
  }
  violations.text("collection.description", description, DESCRIPTION_BYTES_MAX);
  const time = readEventTime(violations, updateTime);
  violations.throwIfAny();
  return { collectionId, collection: { collectionId, name, description }, ...time };
}

function readDeleteCollection({ collectionId, updateTime }: DeleteCollectionRequest): CollectionEvent {
  const violations = new Violations();
  violations.id("collection_id", collectionId);
  const time = readEventTime(violations, updateTime);
  violations.throwIfAny();
  return { collectionId, collection: undefined, ...time };
}
