// The published client, unmodified, in Chromium: each of its 26 calls is driven by its own pages, as calls.ts states.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { after, before, suite, test } from "node:test";
import { buy, client, eventually, newCustomer, newOwner, type Person, priceOf, service, stripe, unique } from "coseat-client-checks/service";
import type { Page } from "playwright-core";
import { answered, type Call, choose, type Opener, published, start, stop, using } from "./application.ts";
import { STATED, TESTS } from "./calls.ts";

const CHECKSUMS = {
  "index.js": "1380f24055ebc399dc849279fbf8e5e4a0da92320ad42e479cf9476230aa639c",
  "styles.css": "63bb8ec874b54ae8fa9a08ab368187852d57731b6d3b768a1e3e991f05668986",
};

type Name = keyof typeof TESTS;

const works = new Map<Name, (open: Opener) => Promise<void>>();
const driven = new Map<Name, Call[]>();

/** Names what is done on pages of the client. */
function drives(by: Name, work: (open: Opener) => Promise<void>): void {
  works.set(by, work);
}

function fits({ name, status, error }: Call, { call, status: wanted, says }: (typeof STATED)[number]): boolean {
  return name === call && status === wanted && (says === undefined ? !error : (error ?? "").includes(says));
}

before(start);
after(stop);

const email = (name = "member") => `${unique(name)}@example.com`;

/** Returns a person of the demo team. */
const demo = (variable: string, name = variable): Person => ({
  subject: `demo-${name}`,
  email: `${name}@example.com`,
  token: service.tokens[variable]!,
  coseat: client(service.tokens[variable]),
});

/** Opens "Manage users". */
async function dialogOf(page: Page) {
  await page.getByText("Manage users").first().click();
  return page.locator("#headlessui-portal-root");
}

/** Makes a promotion code of 10 percent, and returns it. */
async function promotionCode(): Promise<string> {
  const coupon = await stripe("POST", "coupons", { percent_off: 10, duration: "forever" });
  const code = unique("TEN").replaceAll("-", "").toUpperCase();
  await stripe("POST", "promotion_codes", { code, promotion: { type: "coupon", coupon: coupon.id } });
  return code;
}

/** Types a promotion code that exists after one that does not. */
async function enterCode(page: Page, code: string): Promise<void> {
  await page.getByRole("button", { name: "Add promotion code" }).click();
  const field = page.getByPlaceholder("Add promotion code");
  await field.fill("NONE");
  await field.press("Enter");
  await page.getByText("There is no such promotion code.").first().waitFor();
  await field.fill(code);
  await field.press("Enter");
}

async function cancelPlan(page: Page): Promise<void> {
  await page.getByText("Cancel plan").click();
  await page.getByRole("button", { name: "Cancel subscription" }).click();
}

const isPaid = (page: Page) => page.waitForFunction(() => (globalThis as any).told.includes("paid"));

test("the client is the published one", () => {
  for (const [file, checksum] of Object.entries(CHECKSUMS)) {
    assert.equal(createHash("sha256").update(readFileSync(published(file))).digest("hex"), checksum, file);
  }
});

test("something is stated of each call that the published client makes, and they are 26", () => {
  const text = readFileSync(published("index.js"), "utf8");
  const named = [...text.matchAll(/(?:\.default\)\(|funcName:)"([a-z]+[A-Z]\w+)"/g)].map(([, name = ""]) => name);
  const stated = new Set(STATED.map(({ call }) => call));
  assert.deepEqual([...stated].sort(), [...new Set(named)].sort());
  assert.equal(stated.size, 26);
});

drives("people", async (open) => {
  const owner = await newOwner(2);
  const page = await open("/portal", owner);
  await page.getByText("Team plan").first().waitFor();
  const dialog = await dialogOf(page);
  for (const one of [1, 2, 3].map(() => email())) {
    await dialog.locator("input[name=email]").fill(one);
    await dialog.getByRole("button", { name: "Add", exact: true }).click();
    await dialog.getByText(one).first().waitFor();
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
  // An invoice comes by an event of its own, a moment after the seats. Then the newest is of the price that was shown.
  await eventually(async () => {
    const { data } = await owner.coseat.getCustomerInvoices();
    return data[0]?.amount_paid === Math.round(shown) ? data[0] : undefined;
  });
  await answered(page, "updateSharedSubscriptionUsers");
});

drives("roles", async (open) => {
  const owner = await newOwner(3);
  const subscription_id = owner.subscriptionId;
  const [stays, goes] = [email("stays"), email("goes")];
  await owner.coseat.updateSharedSubscriptionUsers({ subscription_id, add: [{ email: stays }, { email: goes }] });
  const page = await open("/portal", owner);
  const dialog = await dialogOf(page);
  await dialog.getByText(stays).waitFor();
  await choose(dialog, stays, "Set as manager");
  await choose(dialog, goes, "Remove from plan");
  await dialog.getByText("- Update 1 user role").waitFor();
  await dialog.getByRole("button", { name: "Apply changes" }).click();
  const people = async () => {
    const { data } = await owner.coseat.getSharedSubscriptionUsers({ subscription_id });
    return data.map((one) => `${one.role} ${one.email}`).join() === `owner ${owner.email},manager ${stays}` ? true : undefined;
  };
  await eventually(people, 20);

  const manager = await open("/portal", demo("manager"));
  await manager.getByText("Manager", { exact: true }).waitFor();
  await manager.getByText("Manage users").waitFor();
  await manager.getByText("Payment methods").waitFor({ state: "detached" });
  await cancelPlan(manager);
  await answered(manager, "cancelSubscription");

  const user = await open("/portal", demo("member", "user"));
  await user.getByText("Plan managed by").waitFor();
  await user.getByText("owner@example.com").first().waitFor();
  assert.equal(await user.getByText("Manage users").count(), 0);

  const stranger = await open("/portal", demo("stranger"));
  await stranger.getByText("No subscription").first().waitFor();
  for (const [person, text] of [[owner, subscription_id], [demo("stranger"), "none"]] as const) {
    const shared = await open("/shared", person, { subscription: subscription_id });
    await shared.getByText(`Shared: ${text}`).waitFor();
  }
});

drives("purchase", async (open) => {
  const buyer = await newCustomer();
  const page = await open("/pricing", buyer);
  await page.getByRole("button", { name: "Get started" }).click();
  await page.getByPlaceholder("Name on card").fill("Ada Lovelace");
  await page.getByRole("button", { name: "Start subscription" }).click();
  await isPaid(page);
  const { data } = await buyer.coseat.getCustomerSubscriptions();
  assert.deepEqual(data.map(({ status, role }) => [status, role]), [["active", "owner"]]);
});

drives("bank", async (open) => {
  const buyer = await newCustomer();
  await buyer.coseat.attachPaymentMethodToCustomer({ payment_method_id: "pm_card_authenticationRequired" });
  const page = await open("/pricing", buyer);
  await page.getByRole("button", { name: "Get started" }).click();
  await enterCode(page, await promotionCode());
  await page.getByText("(-10%)").waitFor();
  await page.getByText("$108.00").first().waitFor();
  await page.getByRole("button", { name: "Start subscription" }).click();
  await isPaid(page);
  const [bought] = (await buyer.coseat.getCustomerSubscriptions()).data;
  assert.equal(bought?.status, "active");
  const { data } = await buyer.coseat.getCustomerInvoices();
  assert.deepEqual(data.map(({ amount_paid }) => amount_paid), [10_800]);
});

drives("cards", async (open) => {
  const owner = await newOwner(1);
  const page = await open("/portal", owner);
  await page.getByText("•••• 4242").waitFor();
  await page.evaluate(() => void ((globalThis as any).card = "pm_card_mastercard"));
  await page.getByRole("button", { name: "Add payment method" }).click();
  await page.getByRole("button", { name: "Add card" }).click();
  await page.getByText("•••• 4444").waitFor();
  await choose(page, "•••• 4444", "Make default");
  await answered(page, "setPaymentMethodAsDefault");
  await page.getByText("Default", { exact: true }).waitFor();
  await choose(page, "•••• 4242", "Delete");
  await page.getByText("•••• 4242").waitFor({ state: "detached" });
  const { data } = await owner.coseat.getCustomerPaymentMethods();
  assert.deepEqual(data.map(({ card, is_default }) => [card?.last4, is_default]), [["4444", true]]);
});

drives("ends", async (open) => {
  const buyer = await newCustomer();
  const subscription_id = await buy(buyer.coseat, [{ price_id: await priceOf("prod_demoanalytics") }]);
  const state = async () => (await buyer.coseat.getSubscription({ subscription_id })).subscription;
  const page = await open("/portal", buyer, { refunds: "30" });
  await page.getByText("Analytics add-on").first().waitFor();
  await enterCode(page, await promotionCode());
  // The client shows no price of a plan that is not shared, and no field once there is a discount.
  await answered(page, "applyPromotionCodeToSubscription");
  await page.getByPlaceholder("Add promotion code").waitFor({ state: "detached" });
  assert.deepEqual((await state()).discounts?.map(({ percent_off }) => percent_off), [10]);

  await cancelPlan(page);
  await page.getByText("Will cancel on").waitFor();
  assert.equal((await state()).cancel_at_period_end, true);
  await page.getByText("Don't cancel plan").click();
  await page.getByText("Renews on").waitFor();
  assert.equal((await state()).cancel_at_period_end, false);

  // A product with the key of refunds offers an end at once, and a refund after it.
  await cancelPlan(page);
  await page.getByText("Will cancel on").waitFor();
  await choose(page, "Don't cancel plan", "Cancel now");
  await page.getByRole("button", { name: "Cancel subscription now" }).click();
  await page.getByRole("button", { name: "Request a refund" }).click();
  await page.getByPlaceholder("Reason for the refund").fill("The plan does not have what we need, and we found that out today.");
  await page.getByRole("button", { name: "Submit" }).click();
  // The client cannot show this refusal: its page goes blank.
  await answered(page, "refundSubscription");
  assert.equal((await state()).status, "canceled");
  const later = await open("/portal", buyer);
  await later.getByText("Don't cancel plan").click();
  await answered(later, "dontCancelSubscription");
});

drives("profile", async (open) => {
  const page = await open("/portal", await newOwner(1));
  await page.getByRole("button", { name: "Update billing information" }).click();
  await page.getByPlaceholder("Jane Doe").fill("Grace Hopper");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Grace Hopper").waitFor();
  await page.getByRole("button", { name: "Transfer account" }).click();
  await page.getByPlaceholder("new.account@example.com").fill("other@example.com");
  await page.locator("form").getByRole("button", { name: "Transfer account" }).click();
  await page.getByText("You can always transfer your account back").waitFor();
  await page.locator("button[type=button]", { hasText: /^Transfer account$/ }).click();
  await page.getByText("Sign in with the new e-mail first.").waitFor();
});

drives("change", async (open) => {
  const owner = await newOwner(3);
  const subscription_id = owner.subscriptionId;
  const added = await owner.coseat.updateSharedSubscriptionUsers({ subscription_id, add: [{ email: email() }, { email: email() }] });
  const page = await open("/pricing", owner, { product: "prod_demoscale" });
  const product = async () => (await owner.coseat.getSubscription({ subscription_id })).subscription.items[0]?.product.id;
  await page.getByRole("button", { name: "Get started" }).click();
  const update = page.getByRole("button", { name: "Update subscription" });
  // The client warns only if it knows the subscription when its dialog opens.
  const warning = page.getByRole("button", { name: "Cancel shared subscription for everyone" });
  await page.addLocatorHandler(warning, () => warning.click());
  await update.click();
  await answered(page, "updateSubscription");
  assert.equal(await product(), "prod_demoteam");
  await owner.coseat.updateSharedSubscriptionUsers({ subscription_id, remove: added.results.map((one) => one.customer_id!) });
  await update.click();
  await isPaid(page);
  assert.equal(await product(), "prod_demoscale");
});

drives("nobody", async (open) => {
  const page = await open("/pricing");
  await page.getByRole("button", { name: "Get started" }).click();
  for (const one of ["owner@example.com", email("nobody")]) {
    await page.getByPlaceholder("you@example.com").fill(one);
    await page.getByRole("button", { name: "Continue" }).click();
    await answered(page, "checkCustomerEmail", one.startsWith("owner") ? 1 : 2);
  }
  const portal = await open("/portal");
  await portal.getByPlaceholder("you@example.com").fill("owner@example.com");
  await portal.getByRole("button", { name: "Send email link" }).click();
  await answered(portal, "auth/email/sendEmailLink");
});

suite("pages", { concurrency: 4 }, () => {
  for (const [by, work] of works) {
    test(TESTS[by], async () => {
      const calls = await using(work);
      driven.set(by, calls);
      const missed = STATED.filter((one) => one.by === by && !calls.some((call) => fits(call, one)));
      assert.deepEqual(missed, [], "these were not met");
    });
  }
});

test("every answer to the client was one that is stated", () => {
  const rest = [...driven].flatMap(([by, calls]) => calls.map((call) => ({ by, ...call })));
  assert.ok(rest.length > 100, `${rest.length} calls`);
  const signsIn = ({ name, status, by }: (typeof rest)[number]) =>
    name === "auth/token" ? status === 200 : name === "auth/email/sendEmailLink" && status === 501 && by === "nobody";
  const isStated = (call: (typeof rest)[number]) => STATED.some((one) => fits(call, one) && (one.status === 200 || one.by === call.by));
  assert.deepEqual(rest.filter((call) => !signsIn(call) && !isStated(call)), []);
});
