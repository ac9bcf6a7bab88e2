// Keys, retries, the cache and pages, against a server that answers as it is told.
import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, beforeEach, test } from "node:test";
import { type ClientOptions, createClient, etagOf, isProblem, responseOf, UnexpectedAnswer } from "@coseat/client";

interface Seen {
  method: string;
  url: string;
  headers: IncomingMessage["headers"];
  body: string;
}

type Answered = { status: number; headers?: Record<string, string>; body?: unknown; cut?: boolean } | "cut";

let seen: Seen[] = [];
let answers: Answered[] = [];
let baseUrl = "";

async function respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
  let body = "";
  for await (const part of request) body += part;
  seen.push({ method: request.method ?? "", url: request.url ?? "", headers: request.headers, body });
  const answer = answers.shift() ?? problem(500, "internal_error");
  if (answer === "cut") return void request.socket.destroy();
  const { status, headers = {}, body: said, cut = false } = answer;
  response.writeHead(status, { "Content-Type": "application/json", ...headers });
  if (cut) return void response.write('{"', () => request.socket.destroy());
  response.end(said === undefined ? undefined : typeof said === "string" ? said : JSON.stringify(said));
}

function problem(status: number, code: string, headers: Record<string, string> = {}): Answered {
  const body = { type: "about:blank", title: code, status, code, detail: `It is ${code}.`, request_id: "request-1" };
  return { status, headers: { "Content-Type": "application/problem+json", ...headers }, body };
}

const server = createServer((request, response) => void respond(request, response));
before(async () => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
after(() => server.close());
beforeEach(() => {
  seen = [];
  answers = [];
});

const client = (options: ClientOptions = {}) => createClient({ baseUrl, token: "secret", ...options });
const customer = (name: string) => ({ status: 200, headers: { ETag: `"${name}"` }, body: { customer: { name } } });

test("a call is sent as its operation says", async () => {
  answers = [{ status: 200, body: { ok: true } }, { status: 204 }];
  const added = await client().updateSharedSubscriptionUsers({ subscription_id: "sub_/1", remove: ["cus_1"] });
  assert.equal(responseOf(added)?.status, 200);
  assert.equal(await client().detachPaymentMethodFromCustomer({ payment_method_id: "pm_1" }), undefined);
  const [change, detach] = seen;
  assert.equal(change?.method, "PATCH");
  assert.equal(change?.url, "/v1/shared-subscriptions/sub_%2F1/users");
  assert.equal(change?.body, '{"remove":["cus_1"]}');
  assert.equal(change?.headers.authorization, "Bearer secret");
  assert.equal(detach?.url, "/v1/customers/me/payment-methods/pm_1");
  assert.equal(detach?.body, "");
});

test("a query repeats the values of a list", async () => {
  answers = [{ status: 200, body: { data: [], has_more: false, next_cursor: null } }];
  await client().getProducts({ ids: ["prod_1", "prod_2"], currency: "eur" });
  assert.equal(seen[0]?.url, "/v1/products?ids=prod_1&ids=prod_2&currency=eur");
});

test("each write has a key of its own, and its retries have the same", async () => {
  answers = ["cut", problem(503, "stripe_unavailable", { "Retry-After": "0" }), customer("Ada"), customer("Ada")];
  const coseat = client();
  await coseat.updateCustomer({ name: "Ada" });
  await coseat.updateCustomer({ name: "Ada" });
  const keys = seen.map(({ headers }) => headers["idempotency-key"]);
  assert.equal(keys.length, 4);
  assert.equal(new Set(keys.slice(0, 3)).size, 1);
  assert.notEqual(keys[3], keys[0]);
  assert.deepEqual(new Set(seen.map(({ body }) => body)), new Set(['{"name":"Ada"}']));
});

test("an answer that is cut after its headers is asked for again", async () => {
  answers = [{ ...customer("Ada"), cut: true }, { status: 409, cut: true }, customer("Ada")];
  assert.equal((await client().updateCustomer({ name: "Ada" })).customer.name, "Ada");
  assert.equal(new Set(seen.map(({ headers }) => headers["idempotency-key"])).size, 1);
  answers = [{ ...customer("Ben"), cut: true }, customer("Ben")];
  assert.equal((await client().getCustomer()).customer.name, "Ben");
  assert.equal(seen.length, 5);
  answers = Array.from({ length: 9 }, () => ({ ...customer("Ben"), cut: true }));
  await assert.rejects(client({ retries: 1 }).getCustomer(), TypeError);
  assert.equal(seen.length, 7);
});

test("a token is asked for before each try", async () => {
  answers = [problem(429, "rate_limited", { "Retry-After": "0" }), customer("Ada")];
  let count = 0;
  await client({ token: async () => `token-${++count}` }).getCustomer();
  assert.deepEqual(seen.map(({ headers }) => headers.authorization), ["Bearer token-1", "Bearer token-2"]);
});

test("a caller without a token sends no credential", async () => {
  answers = [{ status: 200, body: { data: [] } }];
  await client({ token: undefined }).getProducts();
  assert.equal(seen[0]?.headers.authorization, undefined);
});

test("Retry-After is waited for, unless it is longer than the longest pause", async () => {
  answers = [problem(429, "rate_limited", { "Retry-After": "1" }), customer("Ada")];
  const begun = performance.now();
  await client().getCustomer();
  assert.ok(performance.now() - begun >= 1000);
  answers = [problem(429, "too_many_declines", { "Retry-After": "600" })];
  const refused = await client().getCustomer().catch((error) => error);
  assert.ok(isProblem(refused, "too_many_declines"));
  assert.equal(refused.retryAfter, 600);
  assert.equal(refused.requestId, "request-1");
});

test("a 409 is sent again only with Retry-After, and other refusals never", async () => {
  answers = [problem(409, "request_in_progress", { "Retry-After": "0" }), customer("Ada")];
  await client().updateCustomer({ name: "Ada" });
  assert.equal(seen.length, 2);
  for (const [status, code] of [[409, "quote_expired"], [422, "invalid_request"], [500, "internal_error"]] as const) {
    seen = [];
    answers = [problem(status, code)];
    await assert.rejects(client().updateCustomer({ name: "Ada" }), { code, status });
    assert.equal(seen.length, 1);
  }
});

test("tries end after the retries that are allowed", async () => {
  answers = Array.from({ length: 9 }, () => problem(503, "overloaded", { "Retry-After": "0" }));
  await assert.rejects(client({ retries: 2 }).getCustomer(), { code: "overloaded" });
  assert.equal(seen.length, 3);
});

test("a signal ends the pause before a retry", async () => {
  answers = [problem(503, "overloaded", { "Retry-After": "15" })];
  const signal = AbortSignal.timeout(100);
  await assert.rejects(client().getCustomer({}, { signal }), { name: "TimeoutError" });
});

test("an answer that is no problem document is unexpected", async () => {
  answers = [{ status: 502, headers: { "Content-Type": "text/html" }, body: "<h1>Bad Gateway</h1>" }];
  const error = await client().getCustomer().catch((caught) => caught);
  assert.ok(error instanceof UnexpectedAnswer);
  assert.deepEqual([error.response.status, error.body], [502, "<h1>Bad Gateway</h1>"]);
});

test("an unchanged answer comes from the cache", async () => {
  const coseat = client();
  answers = [customer("Ada"), { status: 304, headers: { ETag: '"Ada"' } }, customer("Ben")];
  const first = await coseat.getCustomer();
  assert.deepEqual(await coseat.getCustomer(), first);
  assert.equal((await coseat.getCustomer()).customer.name, "Ben");
  assert.deepEqual(seen.map(({ headers }) => headers["if-none-match"]), [undefined, '"Ada"', '"Ada"']);
  assert.equal(etagOf(first), '"Ada"');
});

test("answers are kept for each acting customer, and only so many", async () => {
  const coseat = client({ cachedAnswers: 1 });
  answers = [customer("Ada"), customer("Ben"), customer("Ada")];
  await coseat.getCustomer({}, { actingCustomer: "cus_1" });
  await coseat.getCustomer({}, { actingCustomer: "cus_2" });
  await coseat.getCustomer({}, { actingCustomer: "cus_1" });
  assert.deepEqual(seen.map(({ headers }) => headers["if-none-match"]), [undefined, undefined, undefined]);
  assert.deepEqual(seen.map(({ headers }) => headers["x-acting-customer"]), ["cus_1", "cus_2", "cus_1"]);
});

test("iterating over a list goes through its pages", async () => {
  const page = (data: number[], next_cursor: string | null) => ({
    status: 200,
    body: { data, next_cursor, has_more: next_cursor !== null },
  });
  answers = [page([1, 2], "b"), page([3], null)];
  const items: unknown[] = [];
  for await (const item of client().getCustomerInvoices({ limit: 2 })) items.push(item);
  assert.deepEqual(items, [1, 2, 3]);
  assert.deepEqual(seen.map(({ url }) => url), [
    "/v1/customers/me/invoices?limit=2",
    "/v1/customers/me/invoices?limit=2&cursor=b",
  ]);
  answers = [{ status: 200, body: { data: [1], next_cursor: "pl_1", has_more: true } }, page([], null)];
  seen = [];
  for await (const event of client().getEvents({ after: "pl_0" })) assert.equal(event, 1);
  assert.deepEqual(seen.map(({ url }) => url), ["/v1/events?after=pl_0", "/v1/events?after=pl_1"]);
});

test("waiting ends when the operation is settled or waits for a payment", async () => {
  const operation = (state: string): Answered => ({ status: 200, body: { operation_id: "op_1", state } });
  answers = [operation("running"), operation("awaiting_payment")];
  assert.equal((await client().waitForOperation("op_1")).state, "awaiting_payment");
  answers = [operation("awaiting_payment"), operation("settled")];
  assert.equal((await client().waitForOperation({ operation_id: "op_1" }, { throughPayment: true })).state, "settled");
  assert.deepEqual(new Set(seen.map(({ url }) => url)), new Set(["/v1/operations/op_1"]));
});

const stream = (...messages: string[]): Answered => ({
  status: 200,
  headers: { "Content-Type": "text/event-stream" },
  body: messages.map((message) => `${message}\n\n`).join(""),
});
const assigned = (id: string) => `id: ${id}\nevent: seat.assigned\ndata: {"type":"seat.assigned"}`;

test("a stream goes on after its last place when it was cut", async () => {
  answers = [
    stream("retry: 1", "id: pl_1\nevent: seat.assigned\ndata: {\"type\":\"seat.assigned\"}", ": heartbeat\nid: pl_2"),
    "cut",
    problem(503, "overloaded", { "Retry-After": "0" }),
    stream("id: pl_3\nevent: seat.released\ndata: {\"type\":\"seat.released\"}"),
    problem(410, "cursor_expired"),
  ];
  const types: string[] = [];
  const places: string[] = [];
  const onPlace = (place: string) => void places.push(place);
  await assert.rejects(async () => {
    for await (const event of client().streamEvents({ subscription_id: "sub_1" }, { onPlace })) types.push(event.type);
  }, { code: "cursor_expired" });
  assert.deepEqual(types, ["seat.assigned", "seat.released"]);
  assert.deepEqual(places, ["pl_1", "pl_2", "pl_3"]);
  assert.deepEqual(seen.map(({ headers }) => headers["last-event-id"]), [undefined, "pl_2", "pl_2", "pl_2", "pl_3"]);
});

test("a place of a stream is reported once its event was worked on", async () => {
  answers = [stream(assigned("pl_1"), assigned("pl_2"), "id: pl_3")];
  const steps: string[] = [];
  for await (const event of client().streamEvents({ subscription_id: "sub_1" }, { onPlace: (place) => void steps.push(place) })) {
    steps.push(`${event.type} begins`);
    await Promise.resolve();
    steps.push("ends");
    if (steps.length > 4) break;
  }
  assert.deepEqual(steps, ["seat.assigned begins", "ends", "pl_1", "seat.assigned begins", "ends"]);
});

test("an error of the application's own ends a stream", async () => {
  answers = [stream(assigned("pl_1"), assigned("pl_2")), problem(410, "cursor_expired")];
  const onPlace = () => {
    throw new TypeError("The place cannot be stored.");
  };
  await assert.rejects(async () => {
    for await (const _ of client().streamEvents({ subscription_id: "sub_1" }, { onPlace }));
  }, { message: "The place cannot be stored." });
  assert.equal(seen.length, 1);
});

test("a stream that is not answered is opened again", { timeout: 10_000 }, async (context) => {
  const arrivals = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  let count = 0;
  const mute = createServer((_, response) => {
    arrivals[count++]?.resolve();
    if (count === 2) response.writeHead(410).end('{"code":"cursor_expired","request_id":"request-1"}');
  });
  await new Promise<void>((resolve) => mute.listen(0, "127.0.0.1", resolve));
  context.after(() => mute.closeAllConnections());
  context.after(() => mute.close());
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const coseat = client({ baseUrl: `http://127.0.0.1:${(mute.address() as AddressInfo).port}` });
  const ended = assert.rejects(coseat.streamEvents({ subscription_id: "sub_1" }).next(), { code: "cursor_expired" });
  await arrivals[0]?.promise;
  context.mock.timers.tick(45_000);
  const clock = setInterval(() => context.mock.timers.tick(1000), 10);
  context.after(() => clearInterval(clock));
  await arrivals[1]?.promise;
  await ended;
});

test("a stream's connection is closed when its reader leaves or its signal aborts", { timeout: 10_000 }, async () => {
  let closed = 0;
  const ended = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const held = createServer((_, response) => {
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write('id: pl_1\ndata: {"type":"seat.assigned"}\n\n');
    response.on("close", () => ended[closed++]?.resolve());
  });
  await new Promise<void>((resolve) => held.listen(0, "127.0.0.1", resolve));
  const coseat = client({ baseUrl: `http://127.0.0.1:${(held.address() as AddressInfo).port}` });
  for await (const event of coseat.streamEvents({ subscription_id: "sub_1" })) {
    assert.equal(event.type, "seat.assigned");
    break;
  }
  await ended[0]?.promise;
  const stop = new AbortController();
  await assert.rejects(async () => {
    for await (const _ of coseat.streamEvents({ subscription_id: "sub_1" }, { signal: stop.signal })) {
      setTimeout(() => stop.abort(), 10);
    }
  }, { name: "AbortError" });
  await ended[1]?.promise;
  held.close();
});
