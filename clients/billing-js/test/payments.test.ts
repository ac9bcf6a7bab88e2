// Payments that are left to make, against a running service.
import assert from "node:assert/strict";
import { test } from "node:test";
import { control, type Customer, eventually, newCustomer, newOwner, priceOf, stripe } from "coseat-client-checks/service";
import { as, delay } from "./asking.ts";

const CANNOT_BE_READ = { status: 503, body: { error: "The payment cannot be read now. Look again in a few minutes." }, session: null };

/** Begins a purchase without a card, and returns its invoice at Stripe while the answer is on its way. */
async function begun({ customerId }: Customer, call: ReturnType<typeof as>) {
  const items = [{ price: await priceOf("prod_demoteam"), quantity: 1 }];
  await delay({ path: "/v1/subscriptions", customer: customerId, latency_s: 0, answer_s: 7.5 });
  const answer = call("addSubscription", { items });
  const invoice = await eventually(async () => (await stripe("GET", `invoices?customer=${customerId}`)).data[0]);
  return { answer, invoice };
}

test("a payment that cannot be read at once is asked for again, and never taken as made", async () => {
  const buyer = await newCustomer();
  const call = as(buyer);
  const { answer, invoice } = await begun(buyer, call);
  const { data } = await control("faults", { method: "GET", object: invoice.id, latency_s: 5.5, times: 0 });
  const { body } = await answer;
  assert.equal(body.status, "incomplete");
  assert.match(body.latest_invoice, /^op_/);
  const read = () => call("getSubscriptionInvoice", { invoiceId: body.latest_invoice });
  assert.deepEqual(await read(), CANNOT_BE_READ);
  await control("faults", { id: data[0].id }, "DELETE");
  const { payment_intent, hosted_invoice_url } = (await read()).body.invoice;
  assert.match(hosted_invoice_url, /^https:/);
  await control("confirm", { client_secret: payment_intent.client_secret, authenticate: true });
  assert.equal((await buyer.coseat.getCustomerSubscriptions()).data[0]?.id, body.id);
});

test("a payment without a secret is made on Stripe's page", async () => {
  const buyer = await newCustomer();
  const call = as(buyer);
  const { answer, invoice } = await begun(buyer, call);
  await control("odd", { object: invoice.id, fields: { payments: { object: "list", data: [] } } });
  const { body } = await answer;
  assert.equal(body.status, "incomplete");
  const shown = (await call("getSubscriptionInvoice", { invoiceId: body.latest_invoice })).body.invoice;
  await control("odd", { object: invoice.id });
  assert.deepEqual([shown.hosted_invoice_url, shown.payment_intent.client_secret], [invoice.hosted_invoice_url, null]);
});

test("a purchase on a live plan that waits for its payment can be paid in the portal", async () => {
  const owner = await newOwner(1);
  const call = as(owner);
  const subscription_id = owner.subscriptionId;
  const card = await stripe("POST", "payment_methods/pm_card_authenticationRequired/attach", { customer: owner.customerId });
  await stripe("POST", `subscriptions/${subscription_id}`, { default_payment_method: card.id });
  const { operation_id } = await owner.coseat.setSeats({ subscription_id, total: 2 });
  const listed = async () => (await call("getCustomerSubscriptions")).body.subscriptions[0];
  const shared = async () => (await call("getSharedSubscription", { subscriptionId: subscription_id })).body.subscription;
  for (const plan of [await listed(), await shared()]) {
    assert.equal(plan.status, "active");
    assert.equal(plan.latest_invoice.id, operation_id);
    assert.match(plan.latest_invoice.hosted_invoice_url, /^https:/);
    assert.deepEqual(plan.latest_invoice.payment_intent, { status: "requires_payment_method", client_secret: null, payment_method: null });
  }
  const { invoice } = (await call("getSubscriptionInvoice", { invoiceId: operation_id })).body;
  await control("confirm", { client_secret: invoice.payment_intent.client_secret, authenticate: true });
  assert.ok(await eventually(async () => ((await listed()).latest_invoice === null ? true : undefined)));
});

test("a purchase that stands while its debit is processed is not asked to be paid again", async () => {
  const buyer = await newCustomer();
  const items = [{ price: await priceOf("prod_demoteam"), quantity: 1 }];
  const { body } = await as(buyer)("addSubscription", { paymentMethodId: "pm_usBankAccount", items });
  const [active] = (await buyer.coseat.getCustomerSubscriptions()).data;
  assert.deepEqual(body, { id: active?.id, status: "active", latest_invoice: active?.latest_invoice_id });
});
