// The running service of the tests: people with tokens, and the Stripe stand-in behind it.
import { createHmac, randomBytes } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import { type Client, type ClientOptions, createClient } from "@coseat/client";

export interface Service {
  api: string;
  stripe: string;
  stripeKey: string;
  jwtSecret: string;
  tokens: Record<string, string>;
}

const named = process.env["COSEAT_SERVICE"];
if (named === undefined) throw new Error("These tests need a service: run them with `make test-clients`.");
export const service: Service = JSON.parse(named);

const encoded = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** Returns a token as the application's identity provider would sign it. */
export function tokenFor(subject: string, claims: object = {}): string {
  const now = Math.floor(Date.now() / 1000);
  const own = { iss: "https://auth.coseat.localhost", aud: "coseat-development", sub: subject, iat: now, exp: now + 3600 };
  const signed = `${encoded({ alg: "HS256", typ: "JWT" })}.${encoded({ ...own, ...claims })}`;
  return `${signed}.${createHmac("sha256", service.jwtSecret).update(signed).digest("base64url")}`;
}

/** Returns a client of the running service. It does not retry unless it is asked to. */
export function client(token: string | undefined, options: ClientOptions = {}): Client {
  return createClient({ baseUrl: service.api, retries: 0, token, ...options });
}

/** Returns a name that nothing else of this run has. */
export function unique(name: string): string {
  return `${name}-${randomBytes(5).toString("hex")}`;
}

export const admin = () => client(service.tokens["service_key"]);

export interface Person {
  subject: string;
  email: string;
  token: string;
  coseat: Client;
}

/** Returns a login that nobody has used yet. */
export function newLogin(name = "login"): Person {
  const subject = unique(name);
  const email = `${subject}@example.com`;
  const token = tokenFor(subject, { email, email_verified: true });
  return { subject, email, token, coseat: client(token) };
}

export interface Customer extends Person {
  customerId: string;
}

/** Returns a login with a customer. */
export async function newCustomer(): Promise<Customer> {
  const person = newLogin("customer");
  const { customer } = await person.coseat.createCustomer();
  return { ...person, customerId: customer.id };
}

export interface Owner extends Customer {
  subscriptionId: string;
}

/** The prices of the demo account by product and interval. */
export async function priceOf(product: string, interval = "month"): Promise<string> {
  const { data } = await client(undefined).getProducts({ ids: [product] });
  const price = data[0]?.prices.find(({ recurring }) => recurring?.interval === interval);
  if (price === undefined) throw new Error(`${product} has no price by ${interval}`);
  return price.id;
}

/** Returns the owner of a new team with `seats` seats. */
export async function newOwner(seats = 3): Promise<Owner> {
  const owner = await newCustomer();
  const items = [{ price_id: await priceOf("prod_demoteam"), quantity: seats }];
  return { ...owner, subscriptionId: await buy(owner.coseat, items) };
}

/** Buys a subscription with a card that pays, and returns its id. */
export async function buy(coseat: Client, items: { price_id: string; quantity?: number }[]): Promise<string> {
  const bought = await coseat.addSubscription({ items, payment_method_id: "pm_card_visa" });
  if (bought.pending) throw new Error(`the purchase is ${bought.state}`);
  return bought.subscription.id;
}

type Form = { [name: string]: Form | string | number | boolean };

function fields(form: Form, prefix = ""): [string, string][] {
  return Object.entries(form).flatMap(([name, value]) => {
    const key = prefix === "" ? name : `${prefix}[${name}]`;
    return typeof value === "object" ? fields(value, key) : [[key, String(value)] as [string, string]];
  });
}

/** Sends a request to the stand-in as Stripe's Dashboard would. */
export async function stripe(method: string, path: string, form: Form = {}): Promise<any> {
  const response = await fetch(`${service.stripe}/v1/${path}`, {
    method,
    headers: { Authorization: `Bearer ${service.stripeKey}`, "X-Simulator-Actor": "dashboard" },
    ...(method === "GET" ? {} : { body: new URLSearchParams(fields(form)) }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(`Stripe's stand-in, ${method} ${path}: ${JSON.stringify(answer)}`);
  return answer;
}

/** Uses a control of the stand-in, and returns its answer. */
export async function control(name: string, body: object, method = "POST"): Promise<any> {
  const response = await fetch(`${service.stripe}/_simulator/${name}`, {
    method,
    headers: { Authorization: `Bearer ${service.stripeKey}`, "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`control ${name}: ${await response.text()}`);
  return response.json();
}

/** Calls until it returns something, for what comes by webhook. */
export async function eventually<Found>(look: () => Promise<Found | undefined>, seconds = 20): Promise<Found> {
  for (const end = Date.now() + seconds * 1000; ; ) {
    const found = await look();
    if (found !== undefined) return found;
    if (Date.now() > end) throw new Error(`nothing was found in ${seconds} s`);
    await setTimeout(50);
  }
}
