/** What people buy, change and end: what is shown of a price is what is charged. Against the whole service. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { control, stripe } from "coseat-client-checks/service";
import type { Locator, Page } from "playwright-core";
import { atApi, newTeam, seatsOf, signUp, startWorld, told, tokenOf, until, useCard, visit, type World } from "./world.ts";

let world: World;

before(async () => {
  world = await startWorld();
});
after(() => world.stop());

const MONTHLY = { interval: "month" };
const SALE = { billing_sellable: "true" };
const NO_SALE = { billing_sellable: "false" };

let products = 0;

interface Offer {
  product: string;
  name: string;
  prices: string[];
}

/** Makes a product with prices, whose first one is the default. */
async function offer(metadata: Record<string, string>, prices: Record<string, any>[]): Promise<Offer> {
  products += 1;
  const name = `Offer ${products} ${process.pid}`;
  const product = (await stripe("POST", "products", { name, metadata })).id as string;
  const made: string[] = [];
  for (const price of prices) made.push((await stripe("POST", "prices", { product, currency: "usd", ...price })).id as string);
  await stripe("POST", `products/${product}`, { default_price: made[0] ?? "" });
  return { product, name, prices: made };
}

/** Waits until a product sells exactly these prices. */
async function sells(product: string, prices: (string | undefined)[]): Promise<void> {
  const token = await tokenOf(world, "looker@example.com");
  await until(async () => {
    const { data } = await atApi(world, "GET", `products?ids=${product}`, undefined, token);
    const sold = (data[0]?.prices ?? []).map((price: { id: string }) => price.id);
    return JSON.stringify(sold.sort()) === JSON.stringify([...prices].sort());
  });
}

let people = 0;

/** Signs a new person up who has a card, and buys. */
async function buyer(purchase: object | null = null): Promise<string> {
  people += 1;
  const email = `buyer-${people}-${process.pid}@example.com`;
  const payment_method_id = await useCard(world, await signUp(world, email, null), "pm_card_visa");
  if (purchase !== null) {
    const asked = { ...purchase, payment_method_id };
    const bought = await atApi(world, "POST", "customers/me/subscriptions", asked, await tokenOf(world, email));
    assert.equal(bought["pending"], false);
  }
  return email;
}

/** Presses a button that sends a change of a subscription. Returns what was sent. */
async function sentBy(page: Page, method: string, button: Locator): Promise<any> {
  const sent: any[] = [];
  await page.route(/\/subscriptions(\/sub_\w+)?$/, (route) => {
    if (route.request().method() === method) sent.push(route.request().postDataJSON());
    return route.continue();
  });
  await button.click();
  await until(async () => sent.length > 0);
  return sent[0];
}

const bought = (page: Page) => sentBy(page, "POST", page.getByRole("dialog").getByRole("button", { name: "Buy" }));

async function demoPrice(product: string, interval: string): Promise<string> {
  const { data } = await atApi(world, "GET", `products?ids=${product}`);
  return data[0].prices.find((price: any) => price.recurring.interval === interval).id;
}

async function optionsOf(select: Locator): Promise<{ all: string[]; chosen: string }> {
  return {
    all: await select.locator("option").allTextContents(),
    chosen: (await select.locator("option:checked").textContent()) ?? "",
  };
}

async function has(locator: Locator, expected: RegExp): Promise<void> {
  await until(async () => expected.test((await locator.textContent().catch(() => null)) ?? ""));
}

describe("purchases", { concurrency: 3 }, () => {
  test("a price that is marked for sale is offered, whatever its product says", async () => {
    const { product, name, prices } = await offer({}, [
      { unit_amount: 2000, recurring: MONTHLY },
      { unit_amount: 900, recurring: MONTHLY, metadata: SALE },
    ]);
    await sells(product, [prices[1]]);
    const { page, close } = await visit(world, await buyer(), "#/plans");
    await page.getByRole("button", { name: `Buy ${name}` }).click();
    const sent = await bought(page);
    assert.deepEqual(sent.items, [{ price_id: prices[1], quantity: 1 }]);
    await told(page, new RegExp(`You bought ${name}`));
    await close();
  });

  test("the price that is shown as chosen is the one that is bought when the default is not offered", async () => {
    for (const hidden of [
      { unit_amount: 2000, recurring: MONTHLY, metadata: NO_SALE },
      { unit_amount: 2000 },
    ]) {
      const { product, name, prices } = await offer(SALE, [hidden, { unit_amount: 900, recurring: MONTHLY, metadata: SALE }]);
      await sells(product, "metadata" in hidden ? [prices[1]] : prices);
      const { page, close } = await visit(world, await buyer(), "#/plans");
      await page.getByRole("button", { name: `Buy ${name}` }).click();
      assert.equal(await page.getByLabel("Price").inputValue(), prices[1]);
      assert.equal((await bought(page)).items[0].price_id, prices[1]);
      await told(page, new RegExp(`You bought ${name}`));
      await close();
    }
  });

  test("a metered price is bought without a quantity", async () => {
    const meter = await stripe("POST", "billing/meters", { display_name: "Calls", event_name: `calls_${process.pid}`, default_aggregation: { formula: "sum" } });
    const { product, name, prices } = await offer({ ...SALE, billing_supports_shared_subscriptions: "true" }, [
      { unit_amount: 5, recurring: { ...MONTHLY, usage_type: "metered", meter: meter.id } },
      { unit_amount: 900, recurring: MONTHLY, metadata: SALE },
    ]);
    await sells(product, prices);
    const { page, close } = await visit(world, await buyer(), "#/plans");
    await page.getByRole("button", { name: `Buy ${name}` }).click();
    const seats = page.getByLabel("Number of seats");
    await page.getByLabel("Price").selectOption(prices[1] ?? "");
    await seats.waitFor();
    await page.getByLabel("Price").selectOption(prices[0] ?? "");
    assert.equal(await seats.count(), 0);
    assert.deepEqual((await bought(page)).items, [{ price_id: prices[0] }]);
    await told(page, new RegExp(`You bought ${name}`));
    await close();
  });

  test("prices are shown, and bought, in the currency of the customer", async () => {
    const price_id = await demoPrice("prod_demoteam", "month");
    const email = await buyer({ items: [{ price_id, quantity: 1 }], currency: "eur" });
    const { page, close } = await visit(world, email, "#/subscriptions");
    await page.getByRole("article", { name: "Team plan" }).getByRole("button", { name: "Change", exact: true }).click();
    const select = page.getByRole("dialog").getByLabel("Price");
    await until(async () => (await select.locator("option").count()) === 2);
    assert.deepEqual((await optionsOf(select)).all.sort(), ["€11.00 per month", "€110.00 per year"]);
    await page.keyboard.press("Escape");

    await page.goto(`${world.url}/?as=${email}#/plans`);
    await has(page.getByRole("article", { name: "Analytics add-on" }), /€8\.00 per month/);
    await page.getByRole("button", { name: "Buy Analytics add-on" }).click();
    assert.equal((await optionsOf(page.getByLabel("Price"))).chosen, "€8.00 per month");
    assert.equal((await bought(page)).currency, "eur");
    await told(page, /You bought Analytics add-on/);
    await page.goto(`${world.url}/?as=${email}#/invoices`);
    await page.getByText("€8.00").waitFor();
    await close();
  });

  test("after the last subscription has ended, prices are shown and bought in the currency of the last purchase", async () => {
    const price_id = await demoPrice("prod_demoteam", "month");
    const email = await buyer({ items: [{ price_id, quantity: 1 }], currency: "eur" });
    const token = await tokenOf(world, email);
    const [{ id }] = (await atApi(world, "GET", "customers/me/subscriptions", undefined, token)).data;
    await atApi(world, "POST", `subscriptions/${id}/cancel`, { when: "now" }, token);
    await until(async () => (await atApi(world, "GET", "products", undefined, token)).local_currency === null);
    const { page, close } = await visit(world, email, "#/plans");
    await has(page.getByRole("article", { name: "Analytics add-on" }), /€8\.00 per month/);
    await has(page.getByRole("article", { name: "Scale plan" }), /from \$10\.00 per month/);
    await page.getByRole("button", { name: "Buy Analytics add-on" }).click();
    assert.equal((await bought(page)).currency, "eur");
    await told(page, /You bought Analytics add-on/);
    await close();
  });

  test("a total is dated for a change of quantity, and not for one of the price", async () => {
    const [monthly, yearly] = await Promise.all([demoPrice("prod_demoteam", "month"), demoPrice("prod_demoteam", "year")]);
    const { page, close } = await visit(world, await buyer({ items: [{ price_id: monthly, quantity: 1 }] }), "#/subscriptions");
    await page.getByRole("button", { name: "Change", exact: true }).click();
    const change = page.getByRole("dialog");
    await change.getByLabel("Quantity").fill("2");
    await has(change.locator(".cs-quote"), /Total from .*\$24\.00/);
    await change.getByLabel("Price").selectOption(yearly);
    await has(change.locator(".cs-quote"), /Total at renewal\$240\.00/);
    await close();
  });

  test("a total is not dated when the items renew at different times", async () => {
    const [yearly, monthly] = await Promise.all([demoPrice("prod_demoteam", "year"), demoPrice("prod_demoanalytics", "month")]);
    const items = [{ price_id: yearly, quantity: 1 }, { price_id: monthly, quantity: 1 }];
    const { page, dialog, close } = await visit(world, await buyer({ items }), "#/subscriptions");
    await page.getByRole("button", { name: "Seats and people" }).click();
    await dialog.getByRole("button", { name: "Change seats" }).click();
    await dialog.getByRole("button", { name: "One seat more" }).click();
    await has(dialog.locator(".cs-quote"), /Total at renewal/);
    await close();
  });

  test("a price that is held is shown and kept, on sale or not, and only prices that renew are offered", async () => {
    const meter = await stripe("POST", "billing/meters", { display_name: "Jobs", event_name: `jobs_${process.pid}`, default_aggregation: { formula: "sum" } });
    const { product, prices } = await offer(SALE, [
      { unit_amount: 1000, recurring: MONTHLY },
      { unit_amount: 2000, recurring: MONTHLY, metadata: SALE },
      { unit_amount: 5000, metadata: SALE },
      { unit_amount: 5, recurring: { ...MONTHLY, usage_type: "metered", meter: meter.id }, metadata: SALE },
    ]);
    await sells(product, prices);
    const email = await buyer({ items: [{ price_id: prices[0], quantity: 2 }] });
    await stripe("POST", `prices/${prices[0]}`, { metadata: NO_SALE });
    await sells(product, prices.slice(1));
    const { page, close } = await visit(world, email, "#/subscriptions");
    const open = () => page.getByRole("button", { name: "Change", exact: true }).click();
    const change = page.getByRole("dialog");
    const select = change.getByLabel("Price");
    const quantity = change.getByLabel("Quantity");
    const offered = async () => {
      await until(async () => (await select.locator("option").count()) === 3);
      return optionsOf(select);
    };
    await open();
    const shown = await offered();
    assert.equal(shown.chosen, "$10.00 per month");
    assert.deepEqual(shown.all.sort(), ["$0.05 per month", "$10.00 per month", "$20.00 per month"]);
    await quantity.fill("3");
    await has(change.locator(".cs-quote"), /\$30\.00/);
    await select.selectOption(prices[1] ?? "");
    await has(change.locator(".cs-quote"), /\$60\.00/);
    await select.selectOption(prices[0] ?? "");
    await has(change.locator(".cs-quote"), /\$30\.00/);

    await select.selectOption(prices[3] ?? "");
    assert.equal(await quantity.count(), 0);
    const [item] = (await sentBy(page, "PATCH", change.getByRole("button", { name: "Change subscription" }))).items;
    assert.deepEqual([item.price_id, "quantity" in item], [prices[3], false]);
    await told(page, /The subscription was changed/);

    await change.waitFor({ state: "detached" });
    await page.getByText("$0.05 per month").waitFor();
    await open();
    await until(async () => (await select.locator("option").count()) === 2);
    assert.equal((await optionsOf(select)).chosen, "$0.05 per month");
    assert.equal(await quantity.count(), 0);
    await select.selectOption(prices[1] ?? "");
    await has(change.locator(".cs-quote"), /\$20\.00/);
    await close();
  });

  test("an end, and its withdrawal, are told as they were chosen, once Stripe has done them", async () => {
    const price_id = await demoPrice("prod_demoteam", "month");
    const email = await buyer({ items: [{ price_id, quantity: 1 }] });
    const token = await tokenOf(world, email);
    const [{ id }] = (await atApi(world, "GET", "customers/me/subscriptions", undefined, token)).data;
    const { page, close } = await visit(world, email, "#/subscriptions");
    const delayed = (path: RegExp) =>
      page.waitForResponse((response) => response.request().method() !== "GET" && path.test(response.url()));
    // The API answers 202 after five seconds.
    const slow = (fault: object = {}) => control("faults", { method: "POST", object: id, latency_s: 8, ...fault });

    await slow();
    await page.getByRole("button", { name: "End…" }).click();
    const question = page.getByRole("alertdialog");
    const date = /\w+ \d+, \d{4}/.exec((await question.textContent()) ?? "")?.[0] ?? "no date";
    const [ended] = await Promise.all([delayed(/\/cancel$/), question.getByRole("button", { name: "End subscription" }).click()]);
    assert.equal(ended.status(), 202);
    await told(page, new RegExp(`^The subscription ends on ${date}\\.$`));
    await has(page.getByRole("article", { name: "Team plan" }), /Ends on/);

    await slow({ status: 400, save: true });
    const keep = page.getByRole("button", { name: "Keep the subscription" });
    const [refused] = await Promise.all([delayed(new RegExp(`/${id}$`)), keep.click()]);
    assert.equal(refused.status(), 202);
    await page.getByRole("article", { name: "Team plan" }).getByText("The payment provider refused this.").waitFor();
    assert.deepEqual(await page.evaluate(() => (window as unknown as { told: string[] }).told), []);

    await slow();
    await keep.click();
    await told(page, /The subscription goes on/);
    const { subscription } = await atApi(world, "GET", `subscriptions/${id}`, undefined, token);
    assert.equal(subscription.cancel_at ?? subscription.cancel_at_period_end, false);
    await close();
  });

  test("a page without a way to take a card says so, and offers nothing that cannot be done", async () => {
    people += 1;
    const email = `keyless-${people}-${process.pid}@example.com`;
    await signUp(world, email, null);
    const token = await tokenOf(world, email);
    const { page, close } = await visit(world, email, "#/payment-methods", {}, ({ page }) =>
      page.addInitScript((token) => Object.assign(window, { coseat: { token } }), token),
    );
    await page.getByText("Cards cannot be added here: this page was not set up to take them.").waitFor();
    assert.equal(await page.getByRole("button", { name: "Add card" }).count(), 0);

    const coupon = await stripe("POST", "coupons", { percent_off: 100, duration: "forever" });
    const code = `FREE${people}P${process.pid}`;
    await stripe("POST", "promotion_codes", { code, promotion: { type: "coupon", coupon: coupon.id } });
    await page.evaluate(() => { location.hash = "#/plans"; });
    await page.getByRole("button", { name: "Buy Team plan" }).click();
    await page.getByLabel("Promotion code (optional)").fill(code);
    await page.getByRole("dialog").getByRole("button", { name: "Buy" }).click();
    const card = page.getByRole("dialog", { name: "Add a card" });
    await card.getByText("Nothing can be paid or saved on this page. Ask support.").waitFor();
    assert.equal(await card.getByRole("button", { name: /Save|Pay/ }).count(), 0);
    await close();
  });

  test("a payment that has neither a secret nor a link is not offered", async () => {
    const team = await newTeam(world, 1);
    await useCard(world, team.ownerId, "pm_card_threeDSecure2Required");
    const token = await tokenOf(world, team.owner);
    const { quote_id } = await atApi(world, "POST", `shared-subscriptions/${team.id}/quote`, { total: 2 }, token);
    await atApi(world, "PUT", `shared-subscriptions/${team.id}/seats`, { total: 2, quote_id }, token);
    // The link is shown to the payer only, and a secret is not always known.
    const { page, dialog, close } = await visit(world, team.owner, seatsOf(team), {}, ({ page }) =>
      page.route(`**/v1/shared-subscriptions/${team.id}`, async (route) => {
        const response = await route.fetch();
        if (response.status() !== 200) return route.fulfill({ response });
        const answer = (await response.json()) as any;
        Object.assign(answer.subscription.pending_change.payment, { client_secret: null, hosted_invoice_url: null });
        return route.fulfill({ response, json: answer });
      }),
    );
    await dialog.getByRole("button", { name: "Abandon" }).waitFor();
    assert.equal(await page.getByRole("button", { name: "Finish payment" }).count(), 0);
    await close();
  });
});
