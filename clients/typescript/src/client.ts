import createFetchClient, { type Client as FetchClient } from "openapi-fetch";
import { CoseatError, errorOf, UnexpectedAnswer } from "./errors.ts";
import { OPERATIONS } from "./generated/operations.ts";
import type { paths } from "./generated/schema.ts";
import { events, type StreamOptions } from "./stream.ts";
import { transport, type TransportOptions } from "./transport.ts";
import type { Answer, Event, Input, Item, ListName, ListPage, OperationName, Schemas } from "./types.ts";
import { sleep } from "./waiting.ts";

export interface ClientOptions extends TransportOptions {
  /** The service's address without `/v1`. By default the page's own host. */
  baseUrl?: string;
}

export interface CallOptions {
  signal?: AbortSignal;
  /** Names a write, so that sending it again makes it once. Each call has a key of its own by default. */
  idempotencyKey?: string;
  /** The ETag of the object as it was seen (`etagOf`). The write is refused with `version_conflict` if it changed. */
  ifMatch?: string;
  /** The customer that a service key acts for in this call. */
  actingCustomer?: string;
}

export interface WaitOptions extends Pick<CallOptions, "signal" | "actingCustomer"> {
  /** Go on waiting while the operation waits for a payment, which only the payer can make. */
  throughPayment?: boolean;
}

export type Operation = Schemas["OperationAnswer"];

/** A page that is on its way. Iterating over it yields the items of this page and of all later ones. */
export type Pages<Page, Entry> = Promise<Page> & AsyncIterable<Entry>;

type Result<Name extends OperationName> = Name extends ListName ? Pages<Answer<Name>, Item<Name>> : Promise<Answer<Name>>;

type Method<Name extends OperationName> = {} extends Input<Name>
  ? (input?: Input<Name>, options?: CallOptions) => Result<Name>
  : (input: Input<Name>, options?: CallOptions) => Result<Name>;

type Methods = { [Name in Exclude<OperationName, "streamEvents">]: Method<Name> };

export interface Client extends Methods {
  /** Yields the events of a subscription as they come. It connects again by itself until the signal ends it. */
  streamEvents(input: Input<"streamEvents">, options?: StreamOptions): AsyncGenerator<Event, void>;
  /** Resolves with the operation once it is settled, or waits for a payment. `operation` is an answer or an id. */
  waitForOperation(operation: string | { operation_id: string }, options?: WaitOptions): Promise<Operation>;
  /** The client of openapi-fetch below, for calls by path. It has the same credential, keys, retries and cache. */
  readonly http: FetchClient<paths>;
}

type Fields = Record<string, unknown>;

const responses = new WeakMap<object, Response>();

/** Returns the response that an answer came with. Its body has been read. */
export function responseOf(answer: object): Response | undefined {
  return responses.get(answer);
}

/** Returns the ETag of an answer, for `ifMatch`. */
export function etagOf(answer: object): string | undefined {
  return responses.get(answer)?.headers.get("ETag") ?? undefined;
}

/** Returns a client with a method for each operation of the API. */
export function createClient(options: ClientOptions = {}): Client {
  const http = createFetchClient<paths>({ baseUrl: options.baseUrl ?? "", fetch: transport(options) });
  const methods: Record<string, unknown> = { http };
  for (const name of Object.keys(OPERATIONS) as OperationName[]) {
    methods[name] = (input?: Fields, callOptions?: CallOptions) => call(http, name, input, callOptions);
  }
  const client = methods as unknown as Client;
  client.streamEvents = (input, streamOptions = {}) =>
    events(
      (place, signal) => {
        const headers = place === undefined ? {} : { "Last-Event-ID": place };
        const { actingCustomer } = streamOptions;
        const asked = actingCustomer === undefined ? { signal } : { signal, actingCustomer };
        return send(http, "streamEvents", input, asked, headers) as Promise<ReadableStream<Uint8Array>>;
      },
      isPassing,
      streamOptions,
    );
  client.waitForOperation = (operation, waitOptions = {}) => waitForOperation(client, operation, waitOptions);
  return client;
}

function call(http: FetchClient<paths>, name: OperationName, input: Fields = {}, options: CallOptions = {}): unknown {
  const answer = send(http, name, input, options);
  const cursor = OPERATIONS[name][3];
  if (cursor === undefined) return answer;
  const iterate = async function* () {
    for (let page = (await answer) as ListPage<unknown>; ; ) {
      yield* page.data;
      if (!page.has_more) return;
      page = (await send(http, name, { ...input, [cursor]: page.next_cursor }, options)) as ListPage<unknown>;
    }
  };
  return Object.assign(answer, { [Symbol.asyncIterator]: iterate });
}

/** Sends one call. Fields that are not in the path are its query for a read, its body for a write. */
async function send(
  http: FetchClient<paths>,
  name: OperationName,
  input: Fields,
  options: CallOptions,
  headers: Record<string, string> = {},
): Promise<unknown> {
  const [method, path, takesBody] = OPERATIONS[name];
  const fields = { ...input };
  const inPath: Fields = {};
  for (const [, key = ""] of path.matchAll(/\{(\w+)\}/g)) {
    inPath[key] = fields[key] ?? (key === "customer_id" ? "me" : undefined);
    delete fields[key];
  }
  if (options.idempotencyKey !== undefined) headers["Idempotency-Key"] = options.idempotencyKey;
  if (options.ifMatch !== undefined) headers["If-Match"] = options.ifMatch;
  if (options.actingCustomer !== undefined) headers["X-Acting-Customer"] = options.actingCustomer;
  const request = {
    headers,
    params: { path: inPath, query: takesBody ? {} : fields },
    ...(takesBody ? { body: fields } : {}),
    ...(options.signal ? { signal: options.signal } : {}),
    parseAs: name === "streamEvents" ? "stream" : "json",
  };
  const { data, error, response } = await (http.request as Untyped)(method, path, request);
  if (!response.ok) throw errorOf(name, error, response);
  if (typeof data === "object" && data !== null) responses.set(data, response);
  return data;
}

type Untyped = (
  method: string,
  path: string,
  request: object,
) => Promise<{ data?: unknown; error?: unknown; response: Response }>;

/** Whether a stream may be opened again: the network failed, or the service asked for patience. */
function isPassing(error: unknown): boolean {
  if (error instanceof CoseatError) return error.status === 429 || error.status >= 500;
  return error instanceof TypeError || error instanceof UnexpectedAnswer;
}

const FIRST_PAUSE = 250;
const LONGEST_PAUSE = 4000;

async function waitForOperation(
  client: Client,
  operation: string | { operation_id: string },
  options: WaitOptions,
): Promise<Operation> {
  const { throughPayment = false, ...asked } = options;
  const operation_id = typeof operation === "string" ? operation : operation.operation_id;
  for (let pause = FIRST_PAUSE; ; pause = Math.min(pause * 1.5, LONGEST_PAUSE)) {
    const seen = await client.getOperation({ operation_id }, asked);
    if (seen.state === "settled" || (seen.state === "awaiting_payment" && !throughPayment)) return seen;
    await sleep(pause, options.signal);
  }
}
