/** A seller's grouping of products. */
export interface Collection {
  readonly collectionId: string;
  readonly name: string;
  readonly description: string;
}

/** A seller's create, update or deletion of a collection. The newest by `updateTimeMicros` wins; of two equal ones the deletion, else the first. */
export interface CollectionEvent {
  readonly collectionId: string;
  /** Absent: the collection is deleted. */
  readonly collection: Collection | undefined;
  /** The seller's own time of the update, µs since 1970. */
  readonly updateTimeMicros: number;
}
