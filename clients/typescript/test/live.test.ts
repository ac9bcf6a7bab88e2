// The client against a running service.
import assert from "node:assert/strict";
import { test } from "node:test";
import { etagOf, responseOf } from "@coseat/client";
import { client, control, newOwner, service, stripe, unique } from "coseat-client-checks/service";

const email = () => `${unique("member")}@example.com`;

test("a list is read page by page", async () => {
  const coseat = client(service.tokens["owner"]);
  const emails: unknown[] = [];
  for await (const person of coseat.getSharedSubscriptionUsers({ subscription_id: "sub_demoteam", limit: 1 })) {
    emails.push(person.email);
  }
  assert.deepEqual(emails.slice(0, 3).sort(), ["manager@example.com", "owner@example.com", "user@example.com"]);
});

test("an unchanged answer is a 304, and a changed one is not", async () => {
  const { token } = await newOwner();
  const statuses: number[] = [];
  const coseat = client(token, {
    fetch: async (request) => {
      const response = await fetch(request);
      statuses.push(response.status);
      return response;
    },
  });
  const first = await coseat.getCustomer();
  assert.deepEqual(await coseat.getCustomer(), first);
  await coseat.updateCustomer({ name: "Ada Lovelace" });
  assert.equal((await coseat.getCustomer()).customer.name, "Ada Lovelace");
  assert.deepEqual(statuses, [200, 304, 200, 200]);
});

test("a write is made if the object is as it was seen", async () => {
  const { coseat, subscriptionId: subscription_id } = await newOwner();
  const seen = await coseat.getSubscription({ subscription_id });
  const ifMatch = etagOf(seen);
  assert.ok(ifMatch);
  const items = [{ id: seen.subscription.items[0]!.id, quantity: 4 }];
  const changed = await coseat.updateSubscription({ subscription_id, items }, { ifMatch });
  assert.equal(changed.pending, false);
  await assert.rejects(coseat.updateSubscription({ subscription_id, items }, { ifMatch }), { code: "version_conflict" });
});

test("a write with the key of an earlier one is that write", async () => {
  const { coseat, subscriptionId: subscription_id } = await newOwner();
  const idempotencyKey = unique("key");
  const input = { subscription_id, add: [{ email: email() }] };
  const first = await coseat.updateSharedSubscriptionUsers(input, { idempotencyKey });
  const again = await coseat.updateSharedSubscriptionUsers(input, { idempotencyKey });
  assert.deepEqual(again, first);
  assert.equal(responseOf(again)?.headers.get("Idempotency-Replayed"), "true");
});

test("a service key that acts for an empty customer acts for nobody", async () => {
  const acting = client(service.tokens["service_key"], { actingCustomer: "" });
  const { customerId: customer_id } = await newOwner();
  await assert.rejects(acting.updateCustomer({ customer_id, name: "Nobody" }), { status: 422 });
  await assert.rejects(acting.getCustomer({ customer_id }), { status: 422 });
  const everybody = client(service.tokens["service_key"]);
  await assert.rejects(everybody.getCustomer({ customer_id }, { actingCustomer: "" }), { status: 422 });
});

test("a purchase that waits for its payment is waited for", async () => {
  const { coseat, customerId: customer, subscriptionId: subscription_id } = await newOwner();
  const card = await stripe("POST", "payment_methods/pm_card_authenticationRequired/attach", { customer });
  await stripe("POST", `subscriptions/${subscription_id}`, { default_payment_method: card.id });
  const bought = await coseat.setSeats({ subscription_id, total: 5 });
  assert.equal(bought.pending, true);
  assert.equal(responseOf(bought)?.status, 202);
  const waiting = await coseat.waitForOperation({ operation_id: bought.operation_id ?? "" });
  assert.equal(waiting.state, "awaiting_payment");
  await control("confirm", { client_secret: waiting.payment?.client_secret, authenticate: true });
  const settled = await coseat.waitForOperation(waiting, { throughPayment: true });
  assert.deepEqual([settled.state, settled.seats?.total], ["settled", 5]);
});

test("events are streamed, and go on after the last place", async () => {
  const { coseat, subscriptionId: subscription_id } = await newOwner();
  const stop = new AbortController();
  let place = "";
  const opened = Promise.withResolvers<void>();
  const onPlace = (latest: string) => {
    place = latest;
    opened.resolve();
  };
  async function next(type: string, lastEventId?: string): Promise<string | null> {
    const from = lastEventId === undefined ? {} : { lastEventId };
    for await (const event of coseat.streamEvents({ subscription_id }, { signal: stop.signal, onPlace, ...from })) {
      if (event.type === type) return event.customer_id;
    }
    return null;
  }
  const assigned = next("seat.assigned");
  await opened.promise;
  const added = await coseat.updateSharedSubscriptionUsers({ subscription_id, add: [{ email: email() }] });
  const customer_id = added.results[0]?.customer_id ?? "";
  assert.equal(await assigned, customer_id);
  const before = place;
  await coseat.updateSharedSubscriptionUsers({ subscription_id, remove: [customer_id] });
  assert.equal(await next("seat.released", before), customer_id);
  stop.abort();
});
