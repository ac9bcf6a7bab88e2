// Each call of the Billing.js client through the adapter, against a running service.
import assert from "node:assert/strict";
import { test } from "node:test";
import { client, control, newCustomer, newLogin, newOwner, type Person, priceOf, service, stripe, unique } from "coseat-client-checks/service";
import { reckoned } from "../src/people.ts";
import { adapter, as, delay, email } from "./asking.ts";

const demo = (name: string, subject: string): Person => ({
  subject,
  email: `${name}@example.com`,
  token: service.tokens[name]!,
  coseat: client(service.tokens[name]),
});
const TEAM = "sub_demoteam";

test("licences are reckoned as the client does", () => {
  assert.deepEqual(reckoned(3, 4, 0), { buy: 1, release: 0 });
  assert.deepEqual(reckoned(0, 2, 1), { buy: 1, release: 0 });
  assert.deepEqual(reckoned(0, 0, 2), { buy: 0, release: 2 });
  assert.deepEqual(reckoned(1, 0, 2), { buy: 0, release: 1 });
});

test("signing in gives a session without a credential", async () => {
  const owner = demo("owner", "demo-owner");
  const call = as(owner);
  const { email, hmac } = await adapter!.getEmailHmac();
  assert.equal(email, "owner@example.com");
  const { status, session } = await call("auth/token", { email: "somebody@else.example", hmac });
  assert.equal(status, 200);
  assert.deepEqual([session.email, session.stripeCustomer], ["owner@example.com", "cus_demoowner"]);
  assert.ok(session.exp > Date.now());
  assert.ok(!JSON.stringify(session).includes(owner.token.slice(0, 20)));
});

test("nobody is refused, but sees what is on sale", async () => {
  const call = as(undefined);
  assert.deepEqual(await adapter!.getEmailHmac(), { email: "", hmac: "" });
  assert.deepEqual(await call("getCustomerProfile"), { status: 401, body: { error: "Unauthorized" }, session: null });
  assert.equal((await call("auth/token", { email: "a@example.com", hmac: "x" })).status, 401);
  for (const email of ["owner@example.com", "nobody@example.com"]) {
    assert.deepEqual(await call("checkCustomerEmail", { email }), { status: 403, body: { error: "Sign in first." }, session: null });
  }
  const { body } = await call("getProducts", { productIds: ["prod_demoteam", "prod_absent"] });
  const [team] = body.products;
  assert.equal(body.products.length, 1);
  assert.equal(team.metadata.billing_supports_shared_subscriptions, "true");
  assert.deepEqual(team.pricings.map(({ recurring }: any) => recurring.interval).sort(), ["month", "year"]);
  assert.deepEqual(team.pricings[0].tiers, []);
  assert.equal((await call("getLocalCurrency")).body.localCurrency, "USD");
});

test("a login without a customer has nothing, until the card form is opened", async () => {
  const call = as(newLogin());
  assert.equal((await call("auth/token", { email: "a@example.com", hmac: "x" })).session.stripeCustomer, undefined);
  assert.deepEqual((await call("getCustomerSubscriptions")).body, { subscriptions: [] });
  assert.deepEqual((await call("getCustomerPaymentMethods")).body, { paymentMethods: [] });
  assert.deepEqual((await call("getCustomerInvoices")).body, { invoices: [], hasMore: false });
  assert.deepEqual(await call("setPaymentMethodAsDefault", { paymentMethodId: "pm_1" }), {
    status: 404,
    body: { error: "No customer yet." },
    session: null,
  });
  const { body, session } = await call("getClientSecret");
  assert.match(body.clientSecret, /^seti_/);
  assert.match(session.stripeCustomer, /^cus_/);
});

test("each role sees the subscription as the portal needs it", async () => {
  const seen = async (name: string) => (await as(demo(name, `demo-${name}`))("getSharedSubscription", { subscriptionId: TEAM })).body.subscription;
  const owner = await seen("owner");
  assert.deepEqual(owner.customer, { id: "cus_demoowner", email: "owner@example.com" });
  assert.deepEqual(owner.metadata, { billing_shared_subscription_owner: "cus_demoowner" });
  assert.equal(owner.items.data[0].price.product.id, "prod_demoteam");
  assert.equal(owner.items.data.length, 2);
  assert.equal(owner.plan.interval, "month");
  assert.ok(owner.current_period_end > owner.current_period_start);
  const user = await seen("member");
  assert.equal(user.items.data.length, 1);
  assert.equal(user.customer.email, "owner@example.com");
  assert.equal(await seen("stranger"), null);
  const profile = async (name: string) => (await as(demo(name, `demo-${name}`))("getCustomerProfile")).body.customer;
  assert.deepEqual((await profile("manager")).metadata, { billing_shared_subscription_role: "manager" });
  assert.deepEqual((await profile("owner")).metadata, {});
});

test("a team is listed, and no licence looks free to a caller who may not see it", async () => {
  const owner = await newOwner(4);
  const add = [{ email: email() }, { email: email(), role: "manager" as const }];
  await owner.coseat.updateSharedSubscriptionUsers({ subscription_id: owner.subscriptionId, add });
  const call = as(owner);
  const asked = { subscriptionId: owner.subscriptionId, searchFilter: "", limit: 1 };
  const first = (await call("getSharedSubscriptionUsers", asked)).body;
  // All licences are 4, 2 are free: the client takes 4 - (1 + 1) as free.
  assert.equal(first.totalCount, 1);
  const emails: unknown[] = first.users.map((user: any) => user.email);
  for (let page = first.nextPage; page; ) {
    const { body } = await call("getSharedSubscriptionUsers", { ...asked, page });
    emails.push(...body.users.map((user: any) => user.email));
    page = body.nextPage;
  }
  assert.deepEqual(emails.sort(), add.map((one) => one.email).sort());
  const { status, body } = await as(newLogin())("getSharedSubscriptionUsers", asked);
  assert.deepEqual([status, body.users, body.nextPage], [200, [], null]);
  assert.ok(body.totalCount > 1000);
});

test("people are added and removed, and each refusal has its text", async () => {
  const owner = await newOwner(1);
  const call = as(owner);
  const subscriptionId = owner.subscriptionId;
  const change = async (body: object) =>
    (await call("updateSharedSubscriptionUsers", { subscriptionId, usersToAdd: [], usersToDelete: [], usersRoleUpdates: [], role: "owner", ...body })).body;
  const [first, second] = [email(), email()];
  assert.deepEqual(await change({}), { data: { errors: [] } });
  assert.deepEqual(await change({ usersToAdd: [first.toUpperCase(), first] }), { data: { errors: [] } });
  assert.deepEqual(await change({ usersToAdd: [second] }), {
    data: { errors: [`${second}: there is no free seat. Close this window and add people one at a time to see the price.`] },
  });
  const { body } = await call("getSharedSubscriptionUsers", { subscriptionId, searchFilter: "", limit: 10 });
  assert.equal(body.users.length, 1);
  const usersRoleUpdates = [{ stripeCustomer: body.users[0].stripeCustomer, role: "manager" }];
  assert.deepEqual(await change({ usersRoleUpdates }), { data: { errors: [] } });
  assert.deepEqual(await change({ usersToDelete: [body.users[0].stripeCustomer] }), { data: { errors: [] } });
  const many = Array.from({ length: 101 }, () => email());
  assert.match((await change({ usersToAdd: many })).data.errors[0], /At most 100/);
});

test("a seat is bought only at the price that was shown", async () => {
  const owner = await newOwner(1);
  const call = as(owner);
  const subscriptionId = owner.subscriptionId;
  const change = async (...usersToAdd: string[]) =>
    (await call("updateSharedSubscriptionUsers", { subscriptionId, usersToAdd, usersToDelete: [], usersRoleUpdates: [] })).body.data.errors;
  const seats = async () => (await owner.coseat.getSharedSubscription({ subscription_id: subscriptionId })).subscription.shared?.seats;
  const quoted = (await call("getSharedSubscriptionQuote", { subscriptionId, licensesToAdd: 1, licensesToRemove: 0 })).body;
  assert.ok(quoted.sharedSubscriptionQuote.total > 1000);
  // The quote was shown for one seat more, and two are missing: nothing is bought.
  assert.equal((await change(email(), email(), email())).length, 3);
  assert.equal((await seats())?.total, 1);
  await call("getSharedSubscriptionQuote", { subscriptionId, licensesToAdd: 1, licensesToRemove: 0 });
  assert.deepEqual(await change(email(), email()), []);
  assert.deepEqual([(await seats())?.total, (await seats())?.used], [2, 2]);
});

test("a seat that is released is credited as shown", async () => {
  const owner = await newOwner(2);
  const call = as(owner);
  const subscriptionId = owner.subscriptionId;
  const change = (body: object) => call("updateSharedSubscriptionUsers", { subscriptionId, usersToAdd: [], usersToDelete: [], usersRoleUpdates: [], ...body });
  await change({ usersToAdd: [email(), email()] });
  const quoted = (await call("getSharedSubscriptionQuote", { subscriptionId, licensesToAdd: 0, licensesToRemove: 1 })).body;
  assert.ok(quoted.sharedSubscriptionQuote.total < -1000, JSON.stringify(quoted));
  const { body } = await call("getSharedSubscriptionUsers", { subscriptionId, searchFilter: "", limit: 10 });
  assert.deepEqual((await change({ usersToDelete: [body.users[0].stripeCustomer] })).body, { data: { errors: [] } });
  const { shared } = (await owner.coseat.getSharedSubscription({ subscription_id: subscriptionId })).subscription;
  assert.deepEqual([shared?.seats.total, shared?.seats.used], [1, 1]);
});

test("a purchase is made, cancelled, taken back and discounted", async () => {
  const buyer = await newCustomer();
  const call = as(buyer);
  const attached = (await call("attachPaymentMethodToCustomer", { paymentMethodId: "pm_card_visa", useAsDefault: true, customerName: "Ada" })).body;
  const paymentMethodId = attached.paymentMethod.id;
  assert.equal(attached.paymentMethod.customer, buyer.customerId);
  const items = [{ price: await priceOf("prod_demoteam"), quantity: 2 }];
  const bought = (await call("addSubscription", { productId: "prod_demoteam", paymentMethodId, items })).body;
  assert.equal(bought.status, "active");
  const subscriptionId = bought.id;
  const shown = async () => (await call("getCustomerSubscriptions")).body.subscriptions[0];
  assert.deepEqual((await call("cancelSubscription", { subscriptionId })).body, { id: subscriptionId });
  assert.ok((await shown()).cancel_at > 0);
  assert.deepEqual((await call("dontCancelSubscription", { subscriptionId })).body, { id: subscriptionId });
  assert.equal((await shown()).cancel_at, null);

  const coupon = await stripe("POST", "coupons", { percent_off: 10, duration: "forever" });
  const code = unique("CODE").toUpperCase().replaceAll("-", "");
  await stripe("POST", "promotion_codes", { code, promotion: { type: "coupon", coupon: coupon.id } });
  assert.equal((await call("validatePromotionCode", { code })).body.promotionCode.coupon.percent_off, 10);
  assert.equal((await call("validatePromotionCode", { code: "NONE" })).body.error, "There is no such promotion code.");
  await call("applyPromotionCodeToSubscription", { code, subscriptionId });
  assert.equal((await shown()).discount.coupon.percent_off, 10);

  const [item] = (await shown()).items.data;
  const change = { subscriptionId, productId: "prod_demoteam", paymentMethodId: null, items: [{ id: item.id, quantity: 3, price: item.price.id }] };
  assert.equal((await call("updateSubscription", change)).body.status, "active");

  const invoices = (await call("getCustomerInvoices")).body;
  assert.ok(invoices.invoices.length >= 2);
  assert.deepEqual([invoices.hasMore, invoices.invoices[0].lines.data.length], [false, 1]);
  assert.equal((await call("getCustomerInvoices", { startingAfter: "in_other" })).status, 400);

  const methods = (await call("getCustomerPaymentMethods")).body.paymentMethods;
  assert.equal(methods[0].customer.invoice_settings.default_payment_method, methods[0].id);
  assert.match((await call("detachPaymentMethodFromCustomer", { paymentMethodId })).body.error, /./);
  assert.deepEqual((await call("setPaymentMethodAsDefault", { paymentMethodId })).body, {});
});

test("a bank's confirmation is asked for with the payment's own secret", async () => {
  const buyer = await newCustomer();
  const call = as(buyer);
  const items = [{ price: await priceOf("prod_demoteam"), quantity: 1 }];
  const bought = (await call("addSubscription", { paymentMethodId: "pm_card_authenticationRequired", items })).body;
  assert.equal(bought.status, "incomplete");
  const { invoice } = (await call("getSubscriptionInvoice", { invoiceId: bought.latest_invoice })).body;
  assert.match(invoice.payment_intent.client_secret, /_secret_/);
  assert.match(invoice.payment_intent.payment_method, /^pm_/);
  await control("confirm", { client_secret: invoice.payment_intent.client_secret, authenticate: true });
  const { data } = await buyer.coseat.getCustomerSubscriptions();
  assert.equal(data[0]?.id, bought.id);
  assert.equal((await call("getSubscriptionInvoice", { invoiceId: "in_other" })).status, 404);
});

test("a purchase that takes long is answered by what became of it", async () => {
  const items = [{ price: await priceOf("prod_demoteam"), quantity: 1 }];
  const buyer = await newCustomer();
  const call = as(buyer);
  await delay({ path: "/v1/subscriptions", customer: buyer.customerId });
  const { body } = await call("addSubscription", { paymentMethodId: "pm_card_visa", items });
  const [active] = (await buyer.coseat.getCustomerSubscriptions()).data;
  assert.deepEqual(body, { id: active?.id, status: "active", latest_invoice: active?.latest_invoice_id });
});

test("a change that takes long is answered by what became of it", async () => {
  const owner = await newOwner(1);
  const call = as(owner);
  const subscriptionId = owner.subscriptionId;
  const read = async () => (await owner.coseat.getSubscription({ subscription_id: subscriptionId })).subscription;
  const [item] = (await read()).items;
  const change = (quantity: number) => call("updateSubscription", { subscriptionId, items: [{ id: item!.id, quantity, price: item!.price.id }] });
  const refused = { status: 409, body: { error: "Not changed: stripe_rejected." }, session: null };

  await delay({ object: subscriptionId });
  assert.deepEqual((await change(2)).body, { id: subscriptionId, status: "active", latest_invoice: null });
  await delay({ object: subscriptionId, status: 400, save: true });
  assert.deepEqual(await change(3), refused);
  assert.equal((await read()).items[0]?.quantity, 2);

  await delay({ object: subscriptionId, status: 400, save: true });
  assert.deepEqual(await call("cancelSubscription", { subscriptionId }), refused);
  await delay({ object: subscriptionId });
  assert.deepEqual((await call("cancelSubscription", { subscriptionId })).body, { id: subscriptionId });
  assert.equal((await read()).cancel_at_period_end, true);
  await delay({ object: subscriptionId, status: 400, save: true });
  assert.deepEqual(await call("dontCancelSubscription", { subscriptionId }), refused);
});

test("profile, and the calls that are refused", async () => {
  const call = as(await newCustomer());
  const unnamed = await call("setCustomerBillingDetails", { name: "", address: null });
  assert.deepEqual([unnamed.status, unnamed.body.customerProfile?.name], [200, null]);
  const saved = (await call("setCustomerBillingDetails", { name: "Grace", address: null })).body.customerProfile;
  assert.equal(saved.name, "Grace");
  assert.equal((await call("setCustomerBillingDetails", { name: "", address: null })).status, 422);
  assert.deepEqual((await call("setCustomerTaxId", { taxId: null })).body, {});
  const refused = ["updateCustomerEmail", "checkCustomerEmail", "refundSubscription", "auth/email/sendEmailLink", "getCustomerUpcomingInvoice"];
  const statuses = await Promise.all(refused.map(async (name) => (await call(name, { email: "a@example.com" })).status));
  assert.deepEqual(statuses, [403, 403, 501, 501, 501]);
  assert.equal((await call("setCustomerTaxId", { taxId: { type: "eu_vat", value: "DE1" } })).status, 501);
});

test("other requests, and another Stripe key, go where they went", async () => {
  const asked: unknown[] = [];
  const page = globalThis as any;
  page.Stripe = (...parts: unknown[]) => asked.push(parts);
  as(undefined, { publishableKey: "pk_test_own" });
  page.Stripe("pk_live_other", { stripeAccount: "acct_1" });
  assert.deepEqual(asked, [["pk_test_own"]]);
  assert.equal((await fetch(`${service.api}/healthz`)).status, 200);
  adapter!.remove();
  page.Stripe("pk_live_other");
  assert.deepEqual(asked[1], ["pk_live_other"]);
  delete page.Stripe;
});
