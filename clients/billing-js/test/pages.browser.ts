// The published client, unmodified, in Chromium: its portal and its pricing page on this API.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { dirname } from "node:path";
import { after, before, test } from "node:test";
import { control, eventually, newCustomer, newOwner, type Person, service, unique } from "coseat-client-checks/service";
import { build } from "esbuild";
import { type Browser, chromium, type Page } from "playwright-core";

const CHECKSUMS = {
  "index.js": "1380f24055ebc399dc849279fbf8e5e4a0da92320ad42e479cf9476230aa639c",
  "styles.css": "63bb8ec874b54ae8fa9a08ab368187852d57731b6d3b768a1e3e991f05668986",
};
const own = createRequire(import.meta.url);
const packageOf = (name: string) => dirname(own.resolve(`${name}/package.json`));
const published = (file: string) => own.resolve(`@billing-js/react-billing-js/${file}`);

let bundle = "";
let address = "";
let browser: Browser;

/** Serves the application and, on the same host, the API. */
async function respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part);
  const body = Buffer.concat(parts);
  const path = request.url ?? "/";
  const say = (type: string, text: string | Buffer) => void response.writeHead(200, { "Content-Type": type }).end(text);
  if (path.startsWith("/v1/")) {
    const headers = new Headers();
    for (const name of ["authorization", "content-type", "idempotency-key", "if-none-match"]) {
      const value = request.headers[name];
      if (typeof value === "string") headers.set(name, value);
    }
    const sent = body.length > 0 ? { body } : {};
    const answer = await fetch(service.api + path, { method: request.method ?? "GET", headers, ...sent });
    const kept = ["content-type", "etag", "retry-after", "x-request-id"].flatMap((name) => {
      const value = answer.headers.get(name);
      return value === null ? [] : [[name, value]];
    });
    response.writeHead(answer.status, Object.fromEntries(kept)).end(Buffer.from(await answer.arrayBuffer()));
  } else if (path.startsWith("/payer/")) {
    say("application/json", JSON.stringify(await confirmed(path, JSON.parse(body.toString()))));
  } else if (path === "/app.js") say("text/javascript", bundle);
  else if (path === "/stripe.js") say("text/javascript", readFileSync(new URL("page/stripe.js", import.meta.url)));
  else if (path === "/styles.css") say("text/css", readFileSync(published("styles.css")));
  else {
    const head = '<meta charset="utf-8"><link rel="stylesheet" href="/styles.css"><script src="/stripe.js"></script>';
    say("text/html", `<!doctype html><head>${head}</head><body><div id="root"></div><script src="/app.js"></script></body>`);
  }
}

/** What the payer's browser does at Stripe. */
async function confirmed(path: string, asked: { client_secret: string }): Promise<object> {
  await control("confirm", asked);
  const [id = ""] = asked.client_secret.split("_secret_");
  const kind = path === "/payer/setup" ? "setup_intents" : "payment_intents";
  const response = await fetch(`${service.stripe}/v1/${kind}/${id}`, { headers: { Authorization: `Bearer ${service.stripeKey}` } });
  const intent = (await response.json()) as { status: string; payment_method: string };
  return path === "/payer/setup" ? { setupIntent: intent } : { paymentIntent: intent };
}

const server = createServer((request, response) => void respond(request, response));

before(async () => {
  const made = await build({
    entryPoints: [new URL("page/page.ts", import.meta.url).pathname],
    bundle: true,
    write: false,
    format: "iife",
    // One React for the page and the client, whatever the workspace has besides.
    alias: { react: packageOf("react"), "react-dom": packageOf("react-dom") },
    define: { "process.env.NODE_ENV": '"production"' },
  });
  bundle = made.outputFiles[0]!.text;
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  browser = await chromium.launch({ executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
});

after(async () => {
  await browser?.close();
  server.closeAllConnections();
  server.close();
});

/** Opens a page of the application. Requests to other hosts are recorded, and fail. */
async function open(path: string, person: Person): Promise<{ page: Page; elsewhere: string[] }> {
  const context = await browser.newContext();
  context.setDefaultTimeout(30_000);
  const elsewhere: string[] = [];
  await context.route(
    (url) => url.origin !== address,
    (route) => {
      elsewhere.push(route.request().url());
      return route.abort();
    },
  );
  const page = await context.newPage();
  await page.goto(`${address}${path}#token=${person.token}`);
  return { page, elsewhere };
}

async function check(page: Page, elsewhere: string[], person: Person): Promise<void> {
  const stored = await page.evaluate(() => JSON.stringify(localStorage));
  assert.ok(!stored.includes(person.token.slice(-20)), "the token is stored");
  assert.deepEqual(elsewhere.filter((url) => !url.startsWith("data:")), []);
  assert.deepEqual(new Set(await page.evaluate(() => (globalThis as any).stripeKeys)), new Set(["pk_test_own"]));
}

test("the client is the published one", () => {
  for (const [file, checksum] of Object.entries(CHECKSUMS)) {
    assert.equal(createHash("sha256").update(readFileSync(published(file))).digest("hex"), checksum, file);
  }
});

test("the portal shows the plan, and a person is added and bought a seat for", async () => {
  const owner = await newOwner(2);
  const { page, elsewhere } = await open("/portal", owner);
  await page.getByText("Team plan").first().waitFor();
  await page.getByText("Manage users").first().click();
  const dialog = page.locator("#headlessui-portal-root");
  for (const email of [1, 2, 3].map(() => `${unique("member")}@example.com`)) {
    await dialog.locator("input[name=email]").fill(email);
    await dialog.getByRole("button", { name: "Add", exact: true }).click();
    await dialog.getByText(email).first().waitFor();
  }
  const told = await dialog.getByText(/You will be charged \$[\d.]+ immediately/).innerText();
  const shown = Number(/\$(\d+\.\d\d)/.exec(told)?.[1]) * 100;
  await dialog.getByRole("button", { name: "Apply changes" }).click();
  const subscription_id = owner.subscriptionId;
  const seats = await eventually(async () => {
    const { subscription } = await owner.coseat.getSharedSubscription({ subscription_id });
    return subscription.shared?.seats.used === 3 ? subscription.shared.seats : undefined;
  });
  assert.equal(seats.total, 3);
  const { data } = await owner.coseat.getCustomerInvoices();
  assert.equal(data[0]?.amount_paid, Math.round(shown));
  await check(page, elsewhere, owner);
});

test("a plan is bought on the pricing page with a new card", async () => {
  const buyer = await newCustomer();
  const { page, elsewhere } = await open("/pricing", buyer);
  await page.getByRole("button", { name: "Get started" }).click();
  await page.getByPlaceholder("Name on card").fill("Ada Lovelace");
  await page.getByRole("button", { name: "Start subscription" }).click();
  await page.waitForFunction(() => (globalThis as any).told.includes("paid"));
  const { data } = await buyer.coseat.getCustomerSubscriptions();
  assert.deepEqual(data.map(({ status, role }) => [status, role]), [["active", "owner"]]);
  await check(page, elsewhere, buyer);
});
