import { compareDeliveries } from "./delivery.ts";
import type { EventTime } from "./product-event.ts";

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
export interface CollectionEvent extends EventTime {
  readonly collectionId: string;
  /** Absent: the collection is deleted. */
  readonly collection: Collection | undefined;
}

/** An event whose time is known. */
export interface TimedCollectionEvent extends CollectionEvent {
  readonly updateTimeMicros: number;
}

/** The result of a collection's event. */
export interface CollectionResult {
  /** False if the event was superseded by a newer update or deletion. */
  readonly applied: boolean;
  /** False if the event was superseded, or repeats what is known. */
  readonly changed: boolean;
}

/** Whether an event replaces the one that is known. */
export function replaces(event: TimedCollectionEvent, known: TimedCollectionEvent | undefined): boolean {
  if (known === undefined || event.updateTimeMicros !== known.updateTimeMicros) {
    return known === undefined || event.updateTimeMicros > known.updateTimeMicros;
  }
  if (event.collection === undefined || known.collection === undefined) {
    return known.collection !== undefined;
  }
  return compareDeliveries(event.delivery, known.delivery) > 0;
}

/** Whether two events of a collection have the same time and the same content. */
export function isRepetition(a: TimedCollectionEvent, b: TimedCollectionEvent | undefined): boolean {
  return (
    a.updateTimeMicros === b?.updateTimeMicros &&
    a.collection?.name === b.collection?.name &&
    a.collection?.description === b.collection?.description
  );
}
