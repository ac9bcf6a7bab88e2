// One table of 30 calls, run by three generated clients. calls.json has the calls, in order.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import type { paths } from "@coseat/client";
import createFetchClient from "openapi-fetch";
import { createClient as createHeyClient } from "../generated/hey/client/index.ts";
import * as sdk from "../generated/hey/sdk.gen.ts";
import { control, newLogin, service } from "../service.ts";

type Values = Record<string, unknown>;

interface Call {
  call: string;
  /** The caller's own token, unless it says otherwise. */
  as?: "nobody" | "somebody";
  path?: Values;
  query?: Values;
  headers?: Record<string, string>;
  body?: Values;
  status: number;
  /** The schema of the problem, which typed clients name. */
  problem?: string;
  expect?: Values;
  /** Repeat the call until its answer has these values. */
  until?: Values;
  /** Values of the answer by JSON pointer, or of its headers, that later calls use. */
  keep?: Record<string, string>;
}

type Row = Call | { control: string; body: Values };

interface Said {
  status: number;
  body: unknown;
  headers: Headers;
}

type Sender = (call: Call, token: string | undefined) => Promise<Said>;

const rows: Row[] = JSON.parse(await readFile(new URL("calls.json", import.meta.url), "utf8"));

test("the table has 30 calls, and all methods of Billing.js", () => {
  const names = rows.flatMap((row) => ("call" in row ? [row.call] : []));
  assert.equal(names.length, 30);
  const methods = [
    "getProducts",
    "getCustomerSubscriptions",
    "getCustomerPaymentMethods",
    "getCustomerInvoices",
    "addSubscription",
    "updateSubscription",
    "cancelSubscription",
    "attachPaymentMethodToCustomer",
    "detachPaymentMethodFromCustomer",
    "setPaymentMethodAsDefault",
    "getSharedSubscription",
    "getSharedSubscriptionUsers",
    "updateSharedSubscriptionUsers",
  ];
  assert.deepEqual(methods.filter((method) => !names.includes(method)), []);
});

function at(body: unknown, pointer: string): unknown {
  return pointer
    .split("/")
    .slice(1)
    .reduce<any>((value, key) => value?.[key], body);
}

function filled<Value>(value: Value, kept: Values): Value {
  const text = JSON.stringify(value).replace(/\$\{(\w+)\}/g, (_, name: string) => String(kept[name]).replaceAll('"', '\\"'));
  return JSON.parse(text);
}

function holds(body: unknown, values: Values): boolean {
  return Object.entries(values).every(([pointer, value]) => at(body, pointer) === value);
}

async function run(send: Sender): Promise<void> {
  const { token } = newLogin("table");
  const kept: Values = {};
  for (const template of rows) {
    const row = filled(template, kept);
    if ("control" in row) {
      await control(row.control, row.body);
      continue;
    }
    const credential = { nobody: undefined, somebody: "somebody", caller: token }[row.as ?? "caller"];
    let said = await send(row, credential);
    for (let tries = 0; row.until && !holds(said.body, row.until) && tries < 100; tries++) {
      await setTimeout(100);
      said = await send(row, credential);
    }
    assert.equal(said.status, row.status, `${row.call}: ${JSON.stringify(said.body)}`);
    for (const [pointer, value] of Object.entries({ ...row.until, ...row.expect })) {
      assert.deepEqual(at(said.body, pointer), value, `${row.call} ${pointer}: ${JSON.stringify(said.body)}`);
    }
    for (const [name, place] of Object.entries(row.keep ?? {})) {
      kept[name] = place.startsWith("/") ? at(said.body, place) : said.headers.get(place);
    }
  }
}

test("openapi-typescript with openapi-fetch, its token by middleware", async () => {
  const { paths: stated } = JSON.parse(await readFile("openapi/openapi.json", "utf8"));
  const routes = new Map<string, [string, string]>();
  for (const [path, methods] of Object.entries<Record<string, { operationId: string }>>(stated)) {
    for (const [method, operation] of Object.entries(methods)) routes.set(operation.operationId, [method, path]);
  }
  await run(async ({ call, path, query, headers, body }, token) => {
    const client = createFetchClient<paths>({ baseUrl: service.api });
    if (token !== undefined) {
      client.use({ onRequest: ({ request }) => request.headers.set("Authorization", `Bearer ${token}`) });
    }
    const [method, route] = routes.get(call) ?? assert.fail(call);
    const request = client.request as (method: string, path: string, init: object) => Promise<any>;
    const { data, error, response } = await request(method, route, { params: { path, query, header: headers }, body });
    return { status: response.status, body: data ?? error, headers: response.headers };
  });
});

test("@hey-api/openapi-ts, its token by the option `auth`", async () => {
  await run(async ({ call, path, query, headers, body }, token) => {
    const client = createHeyClient({ baseUrl: service.api, ...(token === undefined ? {} : { auth: () => token }) });
    const send = (sdk as unknown as Record<string, (options: object) => Promise<any>>)[call] ?? assert.fail(call);
    const { data, error, response } = await send({ client, path, query, headers, body });
    return { status: response.status, body: data ?? error, headers: response.headers };
  });
});

test("openapi-python-client, its token by AuthenticatedClient", async () => {
  const program = new URL("calls.py", import.meta.url).pathname;
  const python = spawn("python", [program], { stdio: ["pipe", "pipe", "inherit"] });
  const answers = python.stdout.setEncoding("utf8")[Symbol.asyncIterator]();
  let rest = "";
  async function line(): Promise<string> {
    while (!rest.includes("\n")) {
      const { done, value } = await answers.next();
      if (done) throw new Error("calls.py has ended");
      rest += value;
    }
    const end = rest.indexOf("\n");
    const first = rest.slice(0, end);
    rest = rest.slice(end + 1);
    return first;
  }
  try {
    await run(async (call, token) => {
      python.stdin.write(`${JSON.stringify({ ...call, token, api: service.api })}\n`);
      const { status, body, headers, type } = JSON.parse(await line());
      if (call.problem !== undefined) assert.equal(type, call.problem);
      return { status, body, headers: new Headers(headers) };
    });
  } finally {
    python.stdin.end();
  }
});
