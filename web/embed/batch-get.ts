import { inPortions } from "../live/portions.ts";
import { STALE_HEADER, type WatchedStock, type WatchMessage } from "../live/watch-message.ts";
import { readWatchResponse, writeWatchRequest } from "./wire.ts";

/**
 * Asks once by Connect GET, where no stream gets through; `url` is that of BatchGetStock. Its request has the fields of
 * a watch's, and its response those of a watch's message. Rejects with the first portion that is not answered.
 */
export async function batchGet(
  url: string,
  productIds: readonly string[],
  signal: AbortSignal,
): Promise<WatchMessage<WatchedStock>> {
  let isStale = false;
  const answers = await Promise.all(
    inPortions(productIds).map(async (ids) => {
      const message = encodeURIComponent(btoa(String.fromCharCode(...writeWatchRequest(ids))));
      const query = `?connect=v1&encoding=proto&base64=1&message=${message}`;
      const response = await fetch(url + query, { signal, credentials: "omit" });
      if (!response.ok) throw new Error(`${url} answered ${response.status}`);
      isStale ||= response.headers.has(STALE_HEADER);
      return response.arrayBuffer();
    }),
  );
  // Messages of one type that stand one after another read as one.
  const bytes = await new Blob(answers).arrayBuffer();
  return { ...readWatchResponse(new Uint8Array(bytes)), isSnapshot: true, isStale };
}
