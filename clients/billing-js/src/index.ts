// Answers the Billing.js client inside the page: its requests go no further than `window.fetch`.
import { type Client, type ClientOptions, CoseatError, createClient, isProblem } from "@coseat/client";
import { CALLS, type Memory, me, Refusal } from "./calls.ts";

export interface AdapterOptions extends Omit<ClientOptions, "token" | "actingCustomer"> {
  /** Returns the JWT that the application gives to the API, or nothing while nobody is signed in. */
  token: () => Promise<string | undefined>;
  /** Your own publishable key. The client has keys of Billing.js built in. */
  publishableKey?: string;
  /** For people without a customer, `usd` by default. */
  defaultCurrency?: string;
}

export interface Adapter {
  /** Give it to the client as `getEmailHmac`. It names the person, and nobody if there is no token; no HMAC is read. */
  getEmailHmac(): Promise<{ email: string; hmac: string }>;
  /** Gives `fetch` and `Stripe` back. */
  remove(): void;
}

const PLACES = /^https:\/\/(?:billingjs\.com|us-central1-billing-js\.cloudfunctions\.net)\/api\/v1\/(.+)$/;
const IN_PAGE = "in-page";
const HOUR = 3600;

interface Claims {
  email?: string;
  exp?: number;
}

/** Returns the claims of a JWT, for display only: the API verifies it. */
function claimsOf(token: string): Claims {
  try {
    const payload = (token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(payload), (letter) => letter.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return {};
  }
}

/** Returns the client's session. It has no credential: the token stays with the application. */
async function sessionOf(coseat: Client, token: string): Promise<string> {
  const own = await me(coseat);
  const { email, exp = Date.now() / 1000 + HOUR } = claimsOf(token);
  const session = { email: own?.email ?? email, stripeCustomer: own?.id, exp: exp * 1000, sessionToken: IN_PAGE };
  // It is a header, so that other letters than ASCII are escaped.
  return JSON.stringify(session).replace(/[^ -~]/g, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function answer(status: number, body: object, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(body), { status, headers: { "Content-Type": "application/json", ...headers } });
}

/** Returns a failure as the client reads it: a status and a text. */
function failure(error: unknown): Response {
  if (error instanceof Refusal) return answer(error.status, { error: error.message });
  if (!(error instanceof CoseatError)) return answer(500, { error: "Something went wrong." });
  const { status, problem, retryAfter } = error;
  if (status === 401) return answer(401, { error: "Unauthorized" });
  if (isProblem(error, "customer_not_linked")) return answer(404, { error: "No customer yet." });
  const isTold = status < 500 || status === 503;
  const headers: Record<string, string> = retryAfter === undefined ? {} : { "Retry-After": String(retryAfter) };
  return answer(isTold ? status : 500, { error: isTold ? problem.detail : "Something went wrong." }, headers);
}

/** Returns what answers one request of the client. */
function answering(coseat: Client, { token, defaultCurrency = "usd" }: AdapterOptions) {
  const memory: Memory = { quotes: new Map(), invoices: new Map(), defaultCurrency };
  const isPublic = (name: string) => ["getProducts", "getLocalCurrency", "checkCustomerEmail"].includes(name);

  async function session(): Promise<Record<string, string>> {
    const credential = await token();
    if (!credential) throw new Refusal(401, "Unauthorized");
    return { session: await sessionOf(coseat, credential) };
  }

  return async (name: string, body: object): Promise<Response> => {
    try {
      if (name === "auth/token") return answer(200, {}, await session());
      const call = CALLS[name];
      if (call === undefined) return answer(501, { error: "This is not answered here." });
      if (!isPublic(name) && !(await token())) throw new Refusal(401, "Unauthorized");
      const said = await call(coseat, body, memory);
      // The card form makes the customer of a person who has none: the session must name it.
      return answer(200, said, name === "getClientSecret" ? await session() : {});
    } catch (error) {
      return failure(error);
    }
  };
}

type StripeFactory = (key: string, options?: object) => unknown;
type Page = { fetch: typeof fetch; Stripe?: StripeFactory };

/** Makes `Stripe(…)` use the application's own key, whether Stripe.js is there already or is loaded later. */
function ownStripe(page: Page, publishableKey: string): () => void {
  let real = page.Stripe;
  const own: StripeFactory = () => real?.(publishableKey);
  Object.defineProperty(page, "Stripe", {
    configurable: true,
    get: () => real && Object.assign(own, real),
    set: (loaded: StripeFactory) => void (real = loaded),
  });
  return () => Object.defineProperty(page, "Stripe", { configurable: true, writable: true, value: real });
}

/** Installs the adapter in this page. Call it before the Billing.js client is imported. */
export function install(options: AdapterOptions): Adapter {
  const page = globalThis as unknown as Page;
  const real = page.fetch;
  const coseat = createClient({ ...options, fetch: options.fetch ?? ((request) => real(request)) });
  const answered = answering(coseat, options);
  page.fetch = async (input, init) => {
    const [, name] = PLACES.exec(input instanceof Request ? input.url : String(input)) ?? [];
    if (name === undefined) return real(input, init);
    const text = input instanceof Request ? await input.text() : init?.body;
    const said = await answered(name, typeof text === "string" && text !== "" ? JSON.parse(text) : {});
    init?.signal?.throwIfAborted();
    return said;
  };
  const giveStripeBack = options.publishableKey === undefined ? () => undefined : ownStripe(page, options.publishableKey);
  return {
    async getEmailHmac() {
      const token = await options.token();
      // The client then asks for an address itself.
      if (!token) return { email: "", hmac: "" };
      const email = (await me(coseat))?.email ?? claimsOf(token).email ?? "";
      return { email, hmac: IN_PAGE };
    },
    remove() {
      page.fetch = real;
      giveStripeBack();
    },
  };
}
