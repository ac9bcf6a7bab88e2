// The stream of a subscription's events, read by fetch because EventSource sends no Authorization.
import type { Event } from "./types.ts";
import { backoff, sleep } from "./waiting.ts";

export interface StreamOptions {
  signal?: AbortSignal;
  /** Where to go on: the last place of an earlier stream. Without it the stream begins now. */
  lastEventId?: string;
  /** Called with each new place, also without an event, so that it can be stored. */
  onPlace?: (place: string) => void;
  actingCustomer?: string;
}

/** Opens the stream after a place. Rejects with the API's error. */
export type Opener = (place: string | undefined, signal: AbortSignal) => Promise<ReadableStream<Uint8Array>>;

// The service sends at least a heartbeat every 15 seconds. A connection that is silent for three of them is dead.
const SILENCE = 45_000;
const LONGEST_PAUSE = 30_000;

/** Yields the events of a stream, and connects again after the last place whenever it ends. */
export async function* events(
  open: Opener,
  isPassing: (error: unknown) => boolean,
  options: StreamOptions,
): AsyncGenerator<Event, void> {
  let place = options.lastEventId;
  let pause = 1000;
  for (let failures = 0; ; ) {
    const connection = new AbortController();
    const stop = () => connection.abort();
    options.signal?.addEventListener("abort", stop, { once: true });
    try {
      options.signal?.throwIfAborted();
      for await (const message of messages(await open(place, connection.signal), connection)) {
        failures = 0;
        pause = message.retry ?? pause;
        if (message.id !== undefined && message.id !== place) options.onPlace?.((place = message.id));
        if (message.data !== undefined) yield JSON.parse(message.data) as Event;
      }
      await sleep(pause, options.signal);
    } catch (error) {
      options.signal?.throwIfAborted();
      if (!connection.signal.aborted && !isPassing(error)) throw error;
      await sleep(backoff(++failures, LONGEST_PAUSE), options.signal);
    } finally {
      options.signal?.removeEventListener("abort", stop);
      connection.abort();
    }
  }
}

interface Message {
  id?: string;
  data?: string;
  retry?: number;
}

/**
 * Yields the messages of a body in the format of server-sent events. It aborts a connection that has become silent.
 *
 * A request's signal does not reach its body once the request was collected as garbage, so the reader is cancelled too.
 */
async function* messages(body: ReadableStream<Uint8Array>, connection: AbortController): AsyncGenerator<Message, void> {
  const reader = body.getReader();
  const cancel = () => void reader.cancel().catch(() => undefined);
  connection.signal.addEventListener("abort", cancel, { once: true });
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const timer = setTimeout(() => connection.abort(), SILENCE);
      const { done, value } = await reader.read().finally(() => clearTimeout(timer));
      connection.signal.throwIfAborted();
      if (done) return;
      const blocks = (rest + decoder.decode(value, { stream: true })).split(/\r?\n\r?\n/);
      rest = blocks.pop() ?? "";
      for (const block of blocks) yield parsed(block);
    }
  } finally {
    cancel();
  }
}

function parsed(block: string): Message {
  const message: Message = {};
  for (const line of block.split(/\r?\n/)) {
    const [, field, value = ""] = /^(id|data|retry): ?(.*)$/.exec(line) ?? [];
    if (field === "id") message.id = value;
    if (field === "data") message.data = message.data === undefined ? value : `${message.data}\n${value}`;
    if (field === "retry") message.retry = Number.parseInt(value, 10);
  }
  return message;
}
