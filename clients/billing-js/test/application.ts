// An application with the published client, served beside the API: its pages in Chromium, and what the client called.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { dirname } from "node:path";
import { control, type Person, service } from "coseat-client-checks/service";
import { build } from "esbuild";
import { type Browser, chromium, type Locator, type Page } from "playwright-core";

const own = createRequire(import.meta.url);
const packageOf = (name: string) => dirname(own.resolve(`${name}/package.json`));
export const published = (file: string) => own.resolve(`@billing-js/react-billing-js/${file}`);

/** A call of the client, as the page recorded it. */
export interface Call {
  name: string;
  status: number;
  /** What it says of a failure, or of the parts that were refused. */
  error?: string;
}

let bundle = "";
let address = "";
let browser: Browser | undefined;

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

export async function start(): Promise<void> {
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
}

export async function stop(): Promise<void> {
  await browser?.close();
  server.closeAllConnections();
  server.close();
}

/** Uses pages of the application, one after the other, and returns what the client called on them. */
export async function using(work: (open: Opener) => Promise<void>): Promise<Call[]> {
  const calls: Call[] = [];
  const opened: (() => Promise<void>)[] = [];
  const pages: Page[] = [];
  const open: Opener = async (path, person, flags = {}) => {
    const context = await browser!.newContext();
    context.setDefaultTimeout(Number(process.env["SLOW"] ?? 60_000));
    const elsewhere: string[] = [];
    await context.route(
      (url) => url.origin !== address,
      (route) => {
        elsewhere.push(route.request().url());
        return route.abort();
      },
    );
    const page = await context.newPage();
    pages.push(page);
    const hash = new URLSearchParams(flags);
    if (person !== undefined) hash.set("token", person.token);
    await page.goto(`${address}${path}#${hash}`);
    opened.push(async () => {
      calls.push(...(await page.evaluate(() => (globalThis as any).calls)));
      await checkSecrets(page, person);
      assert.deepEqual(elsewhere.filter((url) => !url.startsWith("data:")), []);
      await context.close();
    });
    return page;
  };
  try {
    await work(open);
  } catch (error) {
    for (const page of pages) {
      console.error(await page.evaluate(() => JSON.stringify((globalThis as any).calls, null, 1)), await page.innerText("body"));
    }
    throw error;
  }
  for (const look of opened) await look();
  return calls;
}

export type Opener = (path: string, person?: Person, flags?: Record<string, string>) => Promise<Page>;

/** The token stays in memory, and no Stripe key but the application's is used. */
async function checkSecrets(page: Page, person: Person | undefined): Promise<void> {
  const stored = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, location.href]));
  assert.ok(!/eyJ[\w-]+\.[\w-]+/.test(stored), "a token is stored");
  if (person !== undefined) {
    for (const part of person.token.split(".").slice(1)) assert.ok(!stored.includes(part), "a part of the token is stored");
    assert.ok(stored.includes("in-page"), "the client has no session");
  }
  assert.deepEqual(new Set(await page.evaluate(() => (globalThis as any).stripeKeys)), new Set(["pk_test_own"]));
}

/** Waits until the client has had an answer to a call. */
export async function answered(page: Page, name: string, times = 1): Promise<void> {
  const wanted = { name, times };
  await page.waitForFunction(
    ({ name, times }) => (globalThis as any).calls.filter((call: Call) => call.name === name).length >= times,
    wanted,
  );
}

/** Chooses an item of the menu in the row that has this text. */
export async function choose(place: Page | Locator, row: string, item: string): Promise<void> {
  const trigger = '[id^="headlessui-popover-button"]';
  const found = place.locator(`:has(${trigger})`, { hasText: row }).last();
  await found.locator(trigger).first().click();
  await found.getByRole("menuitem", { name: item, exact: true }).click();
}
