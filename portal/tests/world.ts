/** What the tests share: a browser beside the `coseat dev` that `clients/checks/run.ts` started, its people and teams. */
import { type Browser, type BrowserContext, chromium, type Locator, type Page } from "playwright-core";
import { service, stripe } from "coseat-client-checks/service";

/** Long enough for a machine that does other work too. What must be fast is measured by the test itself. */
const PATIENCE = 60_000;

export const TEAM = "sub_demoteam";

export interface World {
  url: string;
  browser: Browser;
  stop: () => Promise<void>;
}

export async function startWorld(): Promise<World> {
  const browser = await chromium.launch({
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
  return { url: service.api, browser, stop: () => browser.close() };
}

export interface Look {
  width?: number;
  height?: number;
  theme?: "light" | "dark";
  locale?: "en" | "de" | "ar-XB";
  reducedMotion?: boolean;
  forcedColors?: boolean;
}

/** A person at the portal, in a browser context of their own. */
export interface Visitor {
  page: Page;
  context: BrowserContext;
  dialog: Locator;
  close: () => Promise<void>;
}

/** Opens the portal as a person. `before` may change what the browser gets. */
export async function visit(
  world: World,
  email: string,
  path = "",
  look: Look = {},
  before: (visitor: Pick<Visitor, "page" | "context">) => Promise<unknown> = async () => {},
): Promise<Visitor> {
  const context = await world.browser.newContext({
    viewport: { width: look.width ?? 1280, height: look.height ?? 900 },
    colorScheme: look.theme ?? "light",
    reducedMotion: look.reducedMotion === false ? "no-preference" : "reduce",
    forcedColors: look.forcedColors ? "active" : "none",
    locale: "en-GB",
    timezoneId: "UTC",
  });
  context.setDefaultTimeout(PATIENCE);
  await context.addInitScript(
    ([locale, theme]) => {
      localStorage.setItem("coseat-locale", locale);
      localStorage.setItem("coseat-theme", theme);
    },
    [look.locale ?? "en", look.theme ?? "light"] as const,
  );
  await context.addInitScript(keepTold);
  const page = await context.newPage();
  await before({ page, context });
  await page.goto(`${world.url}/?as=${encodeURIComponent(email)}${path}`);
  const close = async () => {
    // A route that is still waiting for the service's answer must not fail because its page has gone.
    await page.unrouteAll({ behavior: "ignoreErrors" });
    await context.close();
  };
  return { page, context, dialog: page.getByRole("dialog").first(), close };
}

export const OWNER = "owner@example.com";
export const MANAGER = "manager@example.com";
export const MEMBER = "user@example.com";
export const STRANGER = "stranger@example.com";

/** The dialog's address. */
export const SEATS = `#/shared/${TEAM}`;

type Json = Record<string, any>;

/** Calls the API as somebody. Without a token it is the service key. */
export async function atApi(world: World, method: string, path: string, body?: object, token = service.tokens["service_key"]): Promise<Json> {
  return asJson(
    await fetch(`${world.url}/v1/${path}`, {
      method,
      headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    }),
  );
}

export async function tokenOf(world: World, email: string): Promise<string> {
  const response = await fetch(`${world.url}/dev/token`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ email }),
  });
  return String((await asJson(response))["token"]);
}

/** Signs somebody up, with a card. Returns their customer. */
export async function signUp(world: World, email: string, card: string | null = "pm_card_visa"): Promise<string> {
  const { customer } = await atApi(world, "POST", "customers", {}, await tokenOf(world, email));
  if (card !== null) await useCard(world, customer.id, card);
  return customer.id;
}

/** Makes a test card the one that a customer and their subscriptions pay with. Returns its id. */
export async function useCard(world: World, customer: string, card: string): Promise<string> {
  const method = await stripe("POST", `payment_methods/${card}/attach`, { customer });
  await until(async () => {
    const methods = await atApi(world, "GET", `customers/${customer}/payment-methods`);
    return methods["data"].some((one: Json) => one["id"] === method["id"]);
  });
  await atApi(world, "PUT", `customers/${customer}/default-payment-method`, { payment_method_id: method["id"] });
  return String(method["id"]);
}

export interface Team {
  id: string;
  owner: string;
  ownerId: string;
}

let teams = 0;

/** Buys a shared subscription for a new owner, who has the seats that are asked for. */
export async function newTeam(world: World, seats: number, members: { email: string; role?: string }[] = []): Promise<Team> {
  teams += 1;
  const owner = `owner-${teams}-${process.pid}@example.com`;
  const ownerId = await signUp(world, owner, null);
  const card = await useCard(world, ownerId, "pm_card_visa");
  const token = await tokenOf(world, owner);
  const { data } = await atApi(world, "GET", "products?ids=prod_demoteam");
  const price = data[0].prices.find((one: Json) => one.recurring.interval === "month").id;
  const bought = await atApi(world, "POST", "customers/me/subscriptions", { items: [{ price_id: price, quantity: seats }], payment_method_id: card }, token);
  await settled(world, bought, token);
  const [subscription] = (await atApi(world, "GET", "customers/me/subscriptions", undefined, token)).data;
  if (members.length > 0) {
    await settled(world, await atApi(world, "PATCH", `shared-subscriptions/${subscription.id}/users`, { add: members }, token), token);
  }
  return { id: subscription.id, owner, ownerId };
}

async function settled(world: World, answer: Json, token: string): Promise<void> {
  if (!answer["pending"]) return;
  await until(async () => (await atApi(world, "GET", `operations/${answer["operation_id"]}`, undefined, token))["state"] === "settled");
}

/** Waits until a condition holds, at most a minute. */
export async function until(holds: () => Promise<boolean>): Promise<void> {
  const giveUp = Date.now() + PATIENCE;
  while (!(await holds())) {
    if (Date.now() > giveUp) throw new Error(`This does not come to hold: ${holds}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function asJson(response: Response): Promise<Json> {
  const text = await response.text();
  if (!response.ok) throw new Error(`${response.url}: ${response.status} ${text}`);
  return text === "" ? {} : (JSON.parse(text) as Json);
}

export const seatsOf = (team: Team) => `#/shared/${team.id}`;

/** Keeps what the live region says, so that a text is found however short it shows. Runs in the page. */
function keepTold() {
  const told: string[] = [];
  let last: Element | null = null;
  new MutationObserver(() => {
    const said = document.querySelector(".cs-toast > *");
    if (said !== last && said?.textContent) told.push(said.textContent);
    last = said;
  }).observe(document, { subtree: true, childList: true });
  Object.assign(window, { told });
}

/** Waits until screen readers were told a text, after the text that was waited for before. */
export async function told(page: Page, expected: RegExp): Promise<void> {
  await page.waitForFunction(([source, flags]) => {
    const said = (window as unknown as { told: string[] }).told;
    const place = said.findIndex((text) => new RegExp(source, flags).test(text));
    return place >= 0 && said.splice(0, place + 1).length > 0;
  }, [expected.source, expected.flags] as const);
}

export function row(dialog: Locator, name: string): Locator {
  return dialog.locator(".cs-row").filter({ hasText: name });
}
