/** Rows of a batch, the server's limit. */
export const BATCH_ROWS_MAX = 1_000;
/** Bytes of a batch. The server accepts requests of 1 MiB. */
export const BATCH_BYTES_MAX = 900_000;
/** Batches sent and not yet answered. */
export const BATCHES_IN_FLIGHT = 4;
/** How long a batch is retried while the server is unavailable, ms. */
export const RETRY_MS_MAX = 60_000;
