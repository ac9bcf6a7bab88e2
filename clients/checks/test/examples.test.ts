// The examples that are to be copied, each run against a service.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer as createHttpServer, type IncomingHttpHeaders } from "node:http";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { verifyWebhook, type WebhookEvent, WebhookSignatureError } from "@coseat/client";
import { Webhook } from "standardwebhooks";
import { admin, buy, client, eventually, newOwner, priceOf, service, unique } from "../service.ts";

const CHECKOUT = join(import.meta.dirname, "../../..");
const page: any = await import(join(CHECKOUT, "examples/page/people.mjs"));

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address() as AddressInfo;
      probe.close(() => resolve(port));
    });
  });
}

test("a page with fetch lists people, adds one, and tells that no seat is free", async () => {
  const { token, subscriptionId, email: own } = await newOwner(1);
  const email = `${unique("member")}@example.com`;
  assert.equal(await page.add(service.api, token, subscriptionId, email), `${email} has a seat.`);
  assert.equal(await page.add(service.api, token, subscriptionId, "late@example.com"), "All 1 seats are taken.");
  const { people, seats } = await page.people(service.api, token, subscriptionId);
  assert.deepEqual(people.map((one: any) => one.email), [own, email]);
  assert.equal(seats.available, 0);
});

test("a page with fetch names its subscription only", async () => {
  const { token } = await newOwner(1);
  const other = "../customers/me/invoices#";
  await assert.rejects(page.people(service.api, token, other), { code: "invalid_request" });
  assert.match(await page.add(service.api, token, other, "late@example.com"), /^path\/subscription_id: /);
});

test("a link to the page decides nothing about where the token goes", async (context) => {
  const html = readFileSync(join(CHECKOUT, "examples/page/index.html"), "utf8");
  const [, script = ""] = /<script type="module">(.*)<\/script>/s.exec(html) ?? [];
  const asked: string[] = [];
  const listeners: Record<string, (event: object) => Promise<void>> = {};
  const place = (id: string) => ({ addEventListener: (_: string, listener: any) => (listeners[id] = listener), replaceChildren() {} });
  const browser = {
    location: { hash: "#api=https://elsewhere.example&subscription=sub_1" },
    document: { getElementById: place, createElement: () => ({}) },
    fetch: async (url: string) => (asked.push(url), Response.json({ data: [], has_more: false, seats: {} })),
  };
  for (const [name, value] of Object.entries(browser)) {
    const real = Object.getOwnPropertyDescriptor(globalThis, name);
    context.after(() => (real === undefined ? Reflect.deleteProperty(globalThis, name) : Object.defineProperty(globalThis, name, real)));
    Object.defineProperty(globalThis, name, { configurable: true, writable: true, value });
  }
  const people = pathToFileURL(join(CHECKOUT, "examples/page/people.mjs")).href;
  await import(`data:text/javascript,${encodeURIComponent(script.replace("./people.mjs", people))}`);
  await listeners["sign-in"]?.({ preventDefault() {}, target: { token: { value: "secret" } } });
  assert.deepEqual(asked, ["http://127.0.0.1:8000/v1/shared-subscriptions/sub_1/users?limit=100"]);
});

interface Program {
  address: string;
  printed: string[];
}

/** Runs an example on a port of its own, until the work with it is done. */
async function running(port: number, command: string[], environment: object, work: (program: Program) => Promise<void>): Promise<void> {
  const [program = "", ...parts] = command;
  const child = spawn(program, parts, { cwd: CHECKOUT, env: { ...process.env, ...environment }, stdio: ["ignore", "pipe", "inherit"] });
  const printed: string[] = [];
  child.stdout.setEncoding("utf8").on("data", (text: string) => printed.push(...text.trimEnd().split("\n")));
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const address = `http://127.0.0.1:${port}`;
  try {
    await eventually(() => fetch(address).then(() => true, () => undefined), 60);
    await work({ address, printed });
  } finally {
    child.kill("SIGTERM");
    await ended;
  }
}

/** Registers a webhook endpoint, until the work with it is done. */
async function registered(url: string, types: WebhookEvent["type"][], work: (endpoint: Endpoint) => Promise<void>): Promise<void> {
  const made = await admin().createWebhookEndpoint({ url, types: types as [] });
  const endpoint_id = made.webhook_endpoint.id;
  try {
    await work({ endpoint_id, secret: made.secret ?? assert.fail("the secret is shown once, here") });
  } finally {
    await admin().deleteWebhookEndpoint({ endpoint_id });
  }
}

interface Endpoint {
  endpoint_id: string;
  secret: string;
}

async function ask(url: string, headers: Record<string, string>, body?: object): Promise<{ status: number; body: any; cookie: string }> {
  const response = await fetch(url, {
    method: body === undefined ? "GET" : "POST",
    headers: { "Content-Type": "application/json", ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const [cookie = ""] = (response.headers.get("set-cookie") ?? "").split(";");
  const text = await response.text();
  return { status: response.status, body: text === "" ? null : JSON.parse(text), cookie };
}

test("a back end in Express uses access, invitations and events", async () => {
  const own = { COSEAT_API: service.api, SERVICE_KEY: service.tokens["service_key"] };
  const port = await freePort();
  await running(port, [process.execPath, "examples/backend_express.mjs", String(port)], own, async ({ address }) => {
    const as = (customer: string, path: string, body?: object) => ask(address + path, { "X-Demo-Customer": customer }, body);
    const owner = await newOwner(2);
    const subscription_id = owner.subscriptionId;
    const email = `${unique("guest")}@example.com`;
    assert.deepEqual((await as(owner.customerId, "/reports")).body, { reports: [], role: "owner" });
    assert.equal((await as("cus_demostranger", "/reports")).status, 403);
    const invited = await as(owner.customerId, "/invitations", { subscription_id, email });
    assert.deepEqual([invited.status, invited.body], [201, { invited: email, mailed: true }]);
    assert.equal((await as("cus_demostranger", "/invitations", { subscription_id, email })).status, 404);
    const seen = async () => ((await as("", "/changed")).body.includes(owner.customerId) ? true : undefined);
    assert.ok(await eventually(seen));
  });
});

/** Stands in front of the API, which has forgotten the first place that was asked for after. */
async function forgetful(work: (address: string) => Promise<void>): Promise<void> {
  let forgotten: string | null = null;
  const proxy = createHttpServer(async (request, response) => {
    const after = new URL(request.url ?? "", service.api).searchParams.get("after");
    forgotten ??= after;
    const headers = { Authorization: request.headers.authorization ?? "" };
    const path = after !== null && after === forgotten ? "/v1/events?after=pl_999999999" : request.url;
    const answer = await fetch(service.api + path, { headers });
    response.writeHead(answer.status, { "Content-Type": answer.headers.get("Content-Type") ?? "" }).end(await answer.text());
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  try {
    await work(`http://127.0.0.1:${(proxy.address() as AddressInfo).port}`);
  } finally {
    proxy.closeAllConnections();
    proxy.close();
  }
}

test("a back end in Express begins with the snapshot, and again when its place is forgotten", async () => {
  const { customerId: before } = await newOwner(1);
  await forgetful(async (api) => {
    const own = { COSEAT_API: api, SERVICE_KEY: service.tokens["service_key"] };
    const port = await freePort();
    await running(port, [process.execPath, "examples/backend_express.mjs", String(port)], own, async ({ address }) => {
      const hasSeen = (customer: string) => async () => ((await ask(`${address}/changed`, {})).body.includes(customer) ? true : undefined);
      assert.ok(await eventually(hasSeen(before)));
      const { customerId: later } = await newOwner(1);
      assert.ok(await eventually(hasSeen(later)));
    });
  });
});

test("a back end in FastAPI signs people in, makes their tokens, serves by access, and follows signed events", async () => {
  const port = await freePort();
  await registered(`http://127.0.0.1:${port}/hooks/coseat`, ["access.changed"], async ({ secret }) => {
    const own = { COSEAT_API: service.api, TOKEN_SECRET: service.jwtSecret, WEBHOOK_SECRET: secret };
    const command = [join(CHECKOUT, ".venv/bin/python"), "examples/backend_fastapi.py", String(port)];
    await running(port, command, own, async ({ address }) => {
      const signIn = (name: string, password = `password of ${name}`) =>
        ask(`${address}/sign-in`, {}, { email: `${name}@acme.example`, password });
      assert.equal((await signIn("ann", "wrong")).status, 401);
      assert.equal((await signIn("nobody")).status, 401);
      assert.equal((await ask(`${address}/coseat-token`, {})).status, 401);
      const [ann, ben, eve] = (await Promise.all(["ann", "ben", "eve"].map((name) => signIn(name)))).map(({ cookie }) => cookie);
      const as = async (cookie: string | undefined, path: string) => ask(address + path, { Cookie: cookie ?? "" });

      const bought = client((await as(ann, "/coseat-token")).body.token);
      const subscription_id = await buy(bought, [{ price_id: await priceOf("prod_demoteam"), quantity: 2 }]);
      assert.deepEqual((await as(ann, "/access")).body, { prod_demoteam: true, prod_demoscale: false });
      assert.deepEqual((await as(ann, "/reports")).body, { reports: [], role: "owner" });
      assert.equal((await as(ben, "/reports")).status, 403);

      const isOpen = async (open: boolean) => ((await as(ben, "/workspace")).body.open === open ? true : undefined);
      const added = await bought.updateSharedSubscriptionUsers({ subscription_id, add: [{ email: "ben@acme.example" }] });
      assert.deepEqual((await as(ben, "/reports")).body, { reports: [], role: "user" });
      assert.equal((await as(eve, "/reports")).status, 403);
      assert.ok(await eventually(() => isOpen(true)));
      await bought.updateSharedSubscriptionUsers({ subscription_id, remove: [added.results[0]!.customer_id!] });
      assert.equal((await as(ben, "/reports")).status, 403);
      assert.ok(await eventually(() => isOpen(false)));
      assert.equal((await ask(`${address}/hooks/coseat`, { "webhook-id": "evt_1" }, { id: "evt_1" })).status, 401);
    });
  });
});

test("a receiver in TypeScript takes what the worker has signed, and refuses the rest", async () => {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}/hooks`;
  await registered(url, ["access.changed"], async ({ secret }) => {
    const command = [process.execPath, "examples/webhook_receiver.mts", String(port)];
    await running(port, command, { WEBHOOK_SECRET: secret }, async ({ printed }) => {
      const { customerId } = await newOwner(1);
      await eventually(async () => printed.find((line) => line === `access.changed ${customerId}`));
      assert.equal((await ask(url, { "webhook-id": "evt_1" }, { id: "evt_1" })).status, 401);
    });
  });
});

test("what the worker posts is verified by the library and by the client, also while the secret is rotated", async () => {
  const posted: { body: string; headers: IncomingHttpHeaders }[] = [];
  const server = createHttpServer(async (request, response) => {
    posted.push({ body: await text(request), headers: request.headers });
    response.writeHead(204).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const arrived = async (count: number) => eventually(async () => (posted.length >= count ? posted.splice(0) : undefined));
  const accepts = async (secret: string, { body, headers }: (typeof posted)[number]) => {
    const event = JSON.parse(body);
    assert.deepEqual(new Webhook(secret).verify(body, headers as Record<string, string>), event);
    assert.deepEqual(await verifyWebhook(secret, body, headers), event);
  };
  try {
    await registered(`http://127.0.0.1:${port}/`, ["seat.assigned"], async ({ endpoint_id, secret }) => {
      const owner = await newOwner(4);
      const add = () => owner.coseat.updateSharedSubscriptionUsers({ subscription_id: owner.subscriptionId, add: [{ email: `${unique("new")}@example.com` }] });
      await add();
      for (const one of await arrived(1)) await accepts(secret, one);
      const rotating = admin().rotateWebhookEndpointSecret({ endpoint_id, overlap_seconds: 600 });
      await add();
      const rotated = (await rotating).secret ?? assert.fail("the secret is shown once, here");
      // This one may have been signed before the rotation, and so by the first secret alone.
      for (const one of await arrived(1)) await accepts(secret, one);
      await add();
      for (const one of await arrived(1)) for (const each of [secret, rotated]) await accepts(each, one);
      await admin().rotateWebhookEndpointSecret({ endpoint_id, overlap_seconds: 0 });
      await add();
      for (const one of await arrived(1)) await assert.rejects(verifyWebhook(rotated, one.body, one.headers), WebhookSignatureError);
    });
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
