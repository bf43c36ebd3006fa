/** A seller's grouping of products. */
export interface Collection {
  readonly collectionId: string;
  readonly name: string;
  readonly description: string;
}

/**
 * A seller's create, update or deletion of a collection. The newest `updateTimeMicros` wins. Of two events with the same
 * time a deletion wins; otherwise the first one does.
 */
export interface CollectionEvent {
  readonly collectionId: string;
  /** Absent: the collection is deleted. */
  readonly collection: Collection | undefined;
  /** The seller's time of the update, µs since 1970. */
  readonly updateTimeMicros: number;
}
