// The client's `fetch` in a test: what it asks of the adapter, and what it gets.
import { afterEach } from "node:test";
import { type Adapter, type AdapterOptions, install } from "@coseat/billing-js";
import { control, type Person, service, unique } from "coseat-client-checks/service";

export interface Said {
  status: number;
  body: any;
  session: any;
}

export let adapter: Adapter | undefined;

/** Installs the adapter for a person, and returns what the client's `fetch` gets for a call. */
export function as(person: Person | undefined, options: Partial<AdapterOptions> = {}) {
  adapter?.remove();
  adapter = install({ baseUrl: service.api, retries: 0, token: async () => person?.token, ...options });
  return async (name: string, body: object = {}): Promise<Said> => {
    const host = name === "getLocalCurrency" ? "us-central1-billing-js.cloudfunctions.net" : "billingjs.com";
    const sent = name === "getLocalCurrency" ? undefined : JSON.stringify({ ...body, stripeAccount: "acct_1", liveMode: false });
    const response = await fetch(`https://${host}/api/v1/${name}`, { method: "POST", ...(sent ? { body: sent } : {}) });
    const session = response.headers.get("session");
    return { status: response.status, body: await response.json(), session: session && JSON.parse(session) };
  };
}

afterEach(() => {
  adapter?.remove();
  adapter = undefined;
});

export const email = () => `${unique("member")}@example.com`;

/** Lets Stripe take so long for the next write that fits that the API answers 202 first. */
export const delay = (fault: object) => control("faults", { method: "POST", latency_s: 7.5, ...fault });
