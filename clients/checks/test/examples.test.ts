// The examples that are to be copied, each run against a service.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { eventually, newOwner, service, unique } from "../service.ts";

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

test("a back end in Express uses access, invitations and events", async () => {
  const port = await freePort();
  const own = { COSEAT_API: service.api, SERVICE_KEY: service.tokens["service_key"]!, PORT: String(port) };
  const running = spawn(process.execPath, [join(CHECKOUT, "examples/backend_express.mjs")], { env: { ...process.env, ...own }, stdio: ["ignore", "ignore", "inherit"] });
  const ask = async (path: string, customer: string, body?: object) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, {
      method: body === undefined ? "GET" : "POST",
      headers: { "X-Demo-Customer": customer, "Content-Type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return { status: response.status, body: (await response.json()) as any };
  };
  try {
    await eventually(() => ask("/changed", "").catch(() => undefined), 60);
    const owner = await newOwner(2);
    const subscription_id = owner.subscriptionId;
    const email = `${unique("guest")}@example.com`;
    assert.deepEqual((await ask("/reports", owner.customerId)).body, { reports: [], role: "owner" });
    assert.equal((await ask("/reports", "cus_demostranger")).status, 403);
    const invited = await ask("/invitations", owner.customerId, { subscription_id, email });
    assert.deepEqual(invited, { status: 201, body: { invited: email, mailed: true } });
    assert.equal((await ask("/invitations", "cus_demostranger", { subscription_id, email })).status, 404);
    const seen = async () => ((await ask("/changed", "")).body.includes(owner.customerId) ? true : undefined);
    assert.ok(await eventually(seen));
  } finally {
    const ended = new Promise((resolve) => running.once("exit", resolve));
    running.kill("SIGTERM");
    await ended;
  }
});
