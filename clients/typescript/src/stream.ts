// The stream of a subscription's events, read by fetch because EventSource sends no Authorization.
import type { Event } from "./types.ts";
import { backoff, sleep } from "./waiting.ts";

export interface StreamOptions {
  signal?: AbortSignal;
  /** Where to go on: the last place of an earlier stream. Without it the stream begins now. */
  lastEventId?: string;
  /** Called with each new place, so that it can be stored: after its event was worked on, also without an event. */
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
  for await (const { id = place, data } of persistent(open, isPassing, options)) {
    // Control comes back when the next event is asked for. A reader that ends before gets this event again.
    if (data !== undefined) yield JSON.parse(data) as Event;
    if (id !== undefined && id !== place) options.onPlace?.((place = id));
  }
}

/** Yields the messages of one connection after the other. Errors of their reader do not come here. */
async function* persistent(
  open: Opener,
  isPassing: (error: unknown) => boolean,
  { lastEventId, signal }: StreamOptions,
): AsyncGenerator<Message, void> {
  let place = lastEventId;
  let pause = 1000;
  for (let failures = 0; ; ) {
    const connection = new AbortController();
    const stop = () => connection.abort();
    signal?.addEventListener("abort", stop, { once: true });
    try {
      signal?.throwIfAborted();
      const body = await unlessSilent(open(place, connection.signal), connection);
      for await (const message of messages(body, connection)) {
        failures = 0;
        pause = message.retry ?? pause;
        place = message.id ?? place;
        yield message;
      }
      await sleep(pause, signal);
    } catch (error) {
      signal?.throwIfAborted();
      if (!connection.signal.aborted && !isPassing(error)) throw error;
      await sleep(backoff(++failures, LONGEST_PAUSE), signal);
    } finally {
      signal?.removeEventListener("abort", stop);
      connection.abort();
    }
  }
}

/** Waits for a part of a connection, and aborts the connection if it is silent for too long. */
function unlessSilent<Part>(part: Promise<Part>, connection: AbortController): Promise<Part> {
  const timer = setTimeout(() => connection.abort(), SILENCE);
  return part.finally(() => clearTimeout(timer));
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
      const { done, value } = await unlessSilent(reader.read(), connection);
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
