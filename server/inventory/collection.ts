import { compareDeliveries, type Delivery } from "./delivery.ts";

/** A seller's grouping of products. */
export interface Collection {
  readonly collectionId: string;
  readonly name: string;
  readonly description: string;
}

/**
 * A seller's create, update or deletion of a collection. The newest `updateTimeMicros` wins. Of two events with the same
 * time a deletion wins; otherwise the later delivery does.
 */
export interface CollectionEvent {
  readonly collectionId: string;
  /** Absent: the collection is deleted. */
  readonly collection: Collection | undefined;
  /** The seller's time of the update, µs since 1970. */
  readonly updateTimeMicros: number;
  /** The place of the event's message. Absent if it was not delivered by Kafka. */
  readonly delivery?: Delivery | undefined;
}

/** Whether an event replaces the one that is known. */
export function replaces(event: CollectionEvent, known: CollectionEvent | undefined): boolean {
  if (known === undefined || event.updateTimeMicros !== known.updateTimeMicros) {
    return known === undefined || event.updateTimeMicros > known.updateTimeMicros;
  }
  if (event.collection === undefined || known.collection === undefined) {
    return known.collection !== undefined;
  }
  return compareDeliveries(event.delivery, known.delivery) > 0;
}

/** Whether two events of a collection have the same time and the same content. */
export function isRepetition(a: CollectionEvent, b: CollectionEvent | undefined): boolean {
  return (
    a.updateTimeMicros === b?.updateTimeMicros &&
    a.collection?.name === b.collection?.name &&
    a.collection?.description === b.collection?.description
  );
}
