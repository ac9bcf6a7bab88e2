/** What the page loads, what it sends, and how soon it shows what happens at Stripe. */
import assert from "node:assert/strict";
import { request } from "node:http";
import { after, before, type TestContext, test } from "node:test";
import { stripe } from "coseat-client-checks/service";
import type { Page } from "playwright-core";
import { newTeam, OWNER, SEATS, seatsOf, startWorld, until, visit, type World } from "./world.ts";

let world: World;

before(async () => {
  world = await startWorld();
});
after(() => world?.stop());

const SEAT_LIST = 175_000;
const ALL_SCREENS = 260_000;

/** Counts the bytes of scripts and styles as they come through the network, headers and compression included. */
async function transferred(page: Page): Promise<() => number> {
  const network = await page.context().newCDPSession(page);
  const wanted = new Set<string>();
  let bytes = 0;
  network.on("Network.requestWillBeSent", ({ requestId, type }) => {
    if (type === "Script" || type === "Stylesheet") wanted.add(requestId);
  });
  network.on("Network.loadingFinished", ({ requestId, encodedDataLength }) => {
    if (wanted.has(requestId)) bytes += encodedDataLength;
  });
  await network.send("Network.enable");
  return () => bytes;
}

test("scripts and styles are at most 175 kB until the seat list is usable, and 260 kB for all screens", async (t) => {
  let bytes = () => 0;
  const { page, dialog, close } = await visit(world, OWNER, SEATS, {}, async (early) => {
    bytes = await transferred(early.page);
  });
  await dialog.locator(".cs-row").first().waitFor();
  await dialog.getByLabel("Invite people by e-mail").waitFor();
  const first = bytes();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Change", exact: true }).first().click();
  await page.getByRole("dialog").getByLabel("Quantity").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "End…" }).first().click();
  await page.getByRole("alertdialog").waitFor();
  await page.keyboard.press("Escape");
  for (const [screen, shows] of [["plans", "article"], ["invoices", "h1"], ["payment-methods", "h1"], ["profile", "form"], ["invitations/x", ".cs-empty"]]) {
    await page.evaluate((hash) => { location.hash = hash; }, `#/${screen}`);
    await page.locator(`main ${shows}`).first().waitFor();
  }
  const all = bytes();
  t.diagnostic(`${(first / 1000).toFixed(1)} kB until the seat list is usable, ${(all / 1000).toFixed(1)} kB for all screens`);
  assert.ok(first > 50_000, "the page's scripts were counted");
  assert.ok(first <= SEAT_LIST && all <= ALL_SCREENS);
  await close();
});

test("no request of the portal carries a service key, and no token is kept", async () => {
  const headers: Record<string, string>[] = [];
  const { page, dialog, close } = await visit(world, OWNER, SEATS, {}, async (early) => {
    early.page.on("request", (request) => void request.allHeaders().then((all) => headers.push(all), () => {}));
  });
  await dialog.locator(".cs-row").first().waitFor();
  for (const screen of ["plans", "invoices", "payment-methods", "profile"]) {
    await page.evaluate((hash) => { location.hash = hash; }, `#/${screen}`);
    await page.locator("main h1").waitFor();
  }
  const credentials = headers.flatMap((all) => all["authorization"] ?? []);
  assert.ok(credentials.length >= 3, `${credentials.length} requests with a credential`);
  for (const credential of credentials) assert.match(credential, /^Bearer eyJ/);
  for (const all of headers) assert.doesNotMatch(JSON.stringify(all), /csk_|sk_(test|live)_|x-acting-customer/i);
  assert.equal(await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }).includes("eyJ")), false);
  await close();
});

/** Asks for a token as any program can, with these headers. Returns the status and the body. */
function tokenWith(headers: Record<string, string>): Promise<[number | undefined, string]> {
  const { hostname, port } = new URL(world.url);
  return new Promise((resolve, reject) => {
    const asked = request({ hostname, port, path: "/dev/token", method: "POST", headers: { "Content-Type": "application/json", ...headers } }, (answer) => {
      let body = "";
      answer.on("data", (chunk) => { body += chunk; });
      answer.on("end", () => resolve([answer.statusCode, body]));
    });
    asked.on("error", reject);
    asked.end(JSON.stringify({ email: OWNER }));
  });
}

test("a foreign host or origin gets no token", async () => {
  const { host } = new URL(world.url);
  assert.equal((await tokenWith({ Origin: world.url }))[0], 200);
  for (const headers of [{ Host: "rebound.example" }, { Origin: "https://elsewhere.example" }, { Host: host, "Sec-Fetch-Site": "cross-site" }]) {
    const [status, body] = await tokenWith(headers as Record<string, string>);
    assert.equal(status, 404, JSON.stringify(headers));
    assert.doesNotMatch(body, /eyJ/);
  }
  const context = await world.browser.newContext();
  const page = await context.newPage();
  await page.route("http://elsewhere.example/**", (route) => route.fulfill({ contentType: "text/html", body: "<title>elsewhere</title>" }));
  await page.goto("http://elsewhere.example/");
  for (const mode of ["cors", "no-cors"] as const) {
    const read = await page.evaluate(
      ([url, how]) =>
        fetch(`${url}/dev/token`, { method: "POST", mode: how, body: '{"email":"owner@example.com"}' }).then((answer) => answer.text(), () => ""),
      [world.url, mode] as const,
    );
    assert.equal(read, "");
  }
  await context.close();
});

const FIRST = 2_000;
const EACH = 6_000;
const EDITS = 10;
const EDITED_IN = 3_000;
/** A busy machine may be slow once. The service is too slow if it is slow each time. */
const ATTEMPTS = 3;

/** Keeps when the number of seats was first shown. Runs in the page. */
function keepTotals() {
  const seen: Record<string, number> = {};
  const look = () => {
    const total = /^\d+/.exec(document.querySelector("[data-testid=counts]")?.textContent ?? "")?.[0];
    if (total !== undefined) seen[total] ??= Date.now();
  };
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
  look();
  Object.assign(window, { seen });
}

const seenTotals = (page: Page) => page.evaluate(() => (window as unknown as { seen: Record<string, number> }).seen);

/** Edits the number of seats in the Dashboard. Returns how long each edit took to show, in milliseconds. */
async function edited(page: Page, item: string, quantities: number[], within: number): Promise<number[]> {
  await page.evaluate(keepTotals);
  const start = Date.now();
  const sent: [number, number][] = [];
  for (const [place, quantity] of quantities.entries()) {
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, start + (place * within) / quantities.length - Date.now())));
    sent.push([quantity, Date.now()]);
    await stripe("POST", `subscription_items/${item}`, { quantity, proration_behavior: "none" });
  }
  const last = quantities.at(-1) ?? 0;
  await until(async () => last in (await seenTotals(page)));
  const shown = Object.entries(await seenTotals(page)).map(([total, at]) => [Number(total), at] as const);
  // An edit shows with the first number that is its own or a later one.
  return sent.map(([quantity, at]) => Math.min(...shown.flatMap(([total, seen]) => (total >= quantity ? seen : []))) - at);
}

async function attempt(t: TestContext): Promise<boolean> {
  const team = await newTeam(world, 2);
  const { page, dialog, close } = await visit(world, team.owner, seatsOf(team));
  await dialog.getByText("2 seats").waitFor();
  const item = (await stripe("GET", `subscriptions/${team.id}`)).items.data[0].id as string;
  // At rest: Stripe counts the time of an event in seconds, and two of them make it clearly newer.
  await new Promise((resolve) => setTimeout(resolve, 4_000));
  const [first = Infinity] = await edited(page, item, [3], 0);
  const each = await edited(page, item, Array.from({ length: EDITS }, (_, place) => 4 + place), EDITED_IN);
  t.diagnostic(`the first edit showed after ${first} ms, each of ten after at most ${Math.max(...each)} ms`);
  // The last state stays: what was read late does not undo it.
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  assert.match((await dialog.getByTestId("counts").textContent()) ?? "", new RegExp(`^${EDITS + 3} seats`));
  await close();
  return first <= FIRST && Math.max(...each) <= EACH;
}

test("a first Dashboard edit shows within 2 s, each of ten edits in 3 s within 6 s, and the last state stays", async (t) => {
  for (let tries = 1; !(await attempt(t)); tries += 1) assert.ok(tries < ATTEMPTS, `too slow ${tries} times`);
});
