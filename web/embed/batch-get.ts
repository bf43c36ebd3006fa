import { inChunks } from "../live/chunks.ts";
import { STALE_HEADER, type WatchedStock, type WatchMessage } from "../live/watch-message.ts";
import { readWatchResponse, writeWatchRequest } from "./wire.ts";

/**
 * Reads stocks by Connect GET, where no stream gets through; `url` is that of BatchGetStock. Its request and response
 * have the same field numbers as those of WatchStock. Rejects if any chunk fails.
 */
export async function batchGet(
  url: string,
  productIds: readonly string[],
  signal: AbortSignal,
): Promise<WatchMessage<WatchedStock>> {
  let isStale = false;
  const responses = await Promise.all(
    inChunks(productIds).map(async (ids) => {
      const message = encodeURIComponent(btoa(String.fromCharCode(...writeWatchRequest(ids))));
      const query = `?connect=v1&encoding=proto&base64=1&message=${message}`;
      const response = await fetch(url + query, { signal, credentials: "omit" });
      if (!response.ok) throw new Error(`${url} returned HTTP ${response.status}`);
      isStale ||= response.headers.has(STALE_HEADER);
      return response.arrayBuffer();
    }),
  );
  // Concatenated protobuf messages of one type decode as one merged message.
  const bytes = await new Blob(responses).arrayBuffer();
  return { ...readWatchResponse(new Uint8Array(bytes)), isSnapshot: true, isStale };
}
