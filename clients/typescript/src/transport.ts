// Credentials, idempotency keys, retries and the ETag cache, below the calls.
import { retryAfter } from "./errors.ts";
import { backoff, sleep } from "./waiting.ts";

/** A JWT or service key, or a function that returns one. Nothing means an anonymous caller. */
export type Token = string | undefined | (() => string | undefined | Promise<string | undefined>);

export interface TransportOptions {
  /** The caller's credential. A function is asked before each try, so that it can renew a token. */
  token?: Token;
  /** The customer that a service key acts for. Without it the key acts for itself. */
  actingCustomer?: string;
  /** How often a request is sent again, 3 by default. 0 switches it off. */
  retries?: number;
  /** The longest pause before a retry in milliseconds, 20,000 by default. A longer Retry-After is not waited for. */
  longestPause?: number;
  /** How many answers are kept for 304, 100 by default. 0 switches it off. */
  cachedAnswers?: number;
  fetch?: (request: Request) => Promise<Response>;
}

interface Kept {
  etag: string;
  body: string;
  status: number;
}

// Answers for which a later try may have another outcome. 409 is one only with Retry-After.
const PASSING = new Set([408, 429, 503, 504]);

/** Returns an answer once its body has arrived, so that one that is cut is asked for again. A stream has no end. */
async function whole(response: Response): Promise<Response> {
  const isStream = response.headers.get("Content-Type")?.startsWith("text/event-stream");
  if (!isStream) await response.clone().arrayBuffer();
  return response;
}

/** Returns a fetch that sends requests as `options` say. */
export function transport(options: TransportOptions): (request: Request) => Promise<Response> {
  const { token, actingCustomer, retries = 3, longestPause = 20_000 } = options;
  const send = options.fetch ?? ((request: Request) => fetch(request));
  const cache = new Cache(options.cachedAnswers ?? 100);

  async function authorized(request: Request): Promise<Request> {
    const credential = typeof token === "function" ? await token() : token;
    const next = request.clone();
    if (credential) next.headers.set("Authorization", `Bearer ${credential}`);
    return next;
  }

  /** Sends a request until its answer is final, or no tries are left. */
  async function persist(request: Request): Promise<Response> {
    for (let failures = 0; ; failures++) {
      let pause: number;
      try {
        const response = await whole(await send(await authorized(request)));
        const asked = retryAfter(response);
        if (!PASSING.has(response.status) && !(response.status === 409 && asked !== undefined)) return response;
        pause = asked === undefined ? backoff(failures, longestPause) : asked * 1000;
        if (failures >= retries || pause > longestPause) return response;
        await response.body?.cancel();
      } catch (error) {
        if (failures >= retries || request.signal.aborted || !(error instanceof TypeError)) throw error;
        pause = backoff(failures, longestPause);
      }
      await sleep(pause, request.signal);
    }
  }

  return async (request) => {
    // An empty id is sent too, and refused: without the header the key would act for itself.
    if (actingCustomer !== undefined && !request.headers.has("X-Acting-Customer")) {
      request.headers.set("X-Acting-Customer", actingCustomer);
    }
    if (request.method === "GET") return cache.answer(request, persist);
    if (!request.headers.has("Idempotency-Key")) request.headers.set("Idempotency-Key", newKey());
    return persist(request);
  };
}

/** Answers by URL and acting customer. The service decides by the ETag alone whether one is still the caller's view. */
class Cache {
  readonly #kept = new Map<string, Kept>();
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  async answer(request: Request, persist: (request: Request) => Promise<Response>): Promise<Response> {
    const place = `${request.headers.get("X-Acting-Customer")} ${request.url}`;
    const kept = this.#kept.get(place);
    if (kept) request.headers.set("If-None-Match", kept.etag);
    const response = await persist(request);
    if (kept && response.status === 304) return replayed(kept, response);
    const etag = response.headers.get("ETag");
    if (this.#most > 0 && response.status === 200 && etag) {
      this.#keep(place, { etag, body: await response.clone().text(), status: response.status });
    }
    return response;
  }

  #keep(place: string, kept: Kept): void {
    this.#kept.delete(place);
    this.#kept.set(place, kept);
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= this.#most) break;
      this.#kept.delete(oldest);
    }
  }
}

/** Returns the kept answer with the headers of the 304 that confirmed it. */
function replayed(kept: Kept, confirmation: Response): Response {
  const headers = new Headers(confirmation.headers);
  headers.delete("Content-Length");
  headers.set("Content-Type", "application/json");
  return new Response(kept.body, { status: kept.status, headers });
}

/** Returns a key of 128 random bits. `crypto.randomUUID` is missing in pages without https. */
export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
