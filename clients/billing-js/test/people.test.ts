// Changes of people that take long, or that wait for a payment, against a running service.
import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually, newOwner, stripe } from "coseat-client-checks/service";
import { as, delay, email } from "./asking.ts";

/** Returns the dialog of a new owner, whose team has as many people as are named. */
async function dialog(seats: number, people: number) {
  const owner = await newOwner(seats);
  const subscription_id = owner.subscriptionId;
  const add = Array.from({ length: people }, () => ({ email: email() }));
  const added = people > 0 ? (await owner.coseat.updateSharedSubscriptionUsers({ subscription_id, add })).results : [];
  const call = as(owner);
  return {
    owner,
    call,
    members: added.map(({ customer_id }) => customer_id!),
    seats: async () => (await owner.coseat.getSharedSubscription({ subscription_id })).subscription.shared!.seats,
    quote: async (licensesToAdd: number, licensesToRemove: number) =>
      (await call("getSharedSubscriptionQuote", { subscriptionId: subscription_id, licensesToAdd, licensesToRemove })).body,
    change: async (asked: object): Promise<string[]> => {
      const body = { subscriptionId: subscription_id, usersToAdd: [], usersToDelete: [], usersRoleUpdates: [], ...asked };
      return (await call("updateSharedSubscriptionUsers", body)).body.data.errors;
    },
  };
}

test("a seat that waits for the bank is reported as left to pay", async () => {
  const { owner, quote, change, seats } = await dialog(1, 0);
  const customer = owner.customerId;
  const card = await stripe("POST", "payment_methods/pm_card_authenticationRequired/attach", { customer });
  await stripe("POST", `subscriptions/${owner.subscriptionId}`, { default_payment_method: card.id });
  await quote(1, 0);
  assert.deepEqual(await change({ usersToAdd: [email(), email()] }), [
    "The payment has to be confirmed before seats are added. Close this window and choose Complete payment.",
  ]);
  assert.equal((await seats()).total, 1);
});

test("a removal or role change that takes long is reported by what became of it", async () => {
  const { change, members } = await dialog(2, 2);
  const [first = "", second = ""] = members;
  await delay({ object: first, status: 400, save: true });
  const [text = "", ...more] = await change({ usersToDelete: [first] });
  assert.deepEqual([/: not changed \(stripe_rejected\)\.$/.test(text), more], [true, []], text);
  await delay({ object: second, status: 400, save: true });
  const usersRoleUpdates = [{ stripeCustomer: second, role: "manager" }];
  assert.match((await change({ usersRoleUpdates })).join(), /: not changed \(stripe_rejected\)\.$/);
  await delay({ object: second });
  assert.deepEqual(await change({ usersRoleUpdates }), []);
});

test("a seat is released after a removal that takes long", async () => {
  const { change, members, quote, seats } = await dialog(2, 2);
  await quote(0, 1);
  await delay({ object: members[0] });
  assert.deepEqual(await change({ usersToDelete: [members[0]] }), []);
  assert.deepEqual([(await seats()).total, (await seats()).used], [1, 1]);
});

test("a release that takes long is reported by what became of it", async () => {
  const { owner, change, members, quote, seats } = await dialog(2, 2);
  await quote(0, 1);
  await delay({ object: owner.subscriptionId, status: 400, save: true });
  assert.deepEqual(await change({ usersToDelete: [members[0]] }), [
    "The people were removed, and their seats were kept. Not changed: stripe_rejected.",
  ]);
  assert.equal((await seats()).total, 2);
});

test("a seat that was to be released stays if its removal is refused, or still runs", async (context) => {
  const { change, members, quote, seats } = await dialog(2, 2);
  await quote(0, 1);
  await delay({ object: members[0], status: 400, save: true });
  const [refused = "", kept] = await change({ usersToDelete: [members[0]] });
  assert.match(refused, /: not changed \(stripe_rejected\)\.$/);
  assert.equal(kept, "The seats were kept.");

  await quote(0, 1);
  await delay({ object: members[0] });
  const timeout = AbortSignal.timeout;
  context.mock.method(AbortSignal, "timeout", () => timeout.call(AbortSignal, 100));
  assert.deepEqual(await change({ usersToDelete: [members[0]] }), ["The people are being removed, and their seats are kept."]);
  assert.equal(await eventually(async () => ((await seats()).used === 1 ? (await seats()).total : undefined)), 2);
});

test("people without a customer do not spoil a change, and an invitation is revoked", async () => {
  const { owner, call, change, members } = await dialog(3, 1);
  const subscription_id = owner.subscriptionId;
  const invited = await owner.coseat.createInvitation({ subscription_id, email: email() });
  const { id } = invited.invitation;
  const people = async () => (await call("getSharedSubscriptionUsers", { subscriptionId: subscription_id, searchFilter: "", limit: 10 })).body.users;
  assert.deepEqual((await people()).map((one: any) => one.stripeCustomer), [members[0], id]);

  const role = "manager";
  const usersRoleUpdates = [members[0], id, null].map((stripeCustomer) => ({ stripeCustomer, role }));
  assert.deepEqual(await change({ usersRoleUpdates }), [
    "The role of an invited person is changed once the invitation was accepted.",
    "Please try again in a moment.",
  ]);
  assert.deepEqual((await people()).map((one: any) => one.role), ["manager", "user"]);

  const late = email();
  assert.deepEqual(await change({ usersToDelete: [members[0], id, null], usersToAdd: [late] }), ["Please try again in a moment."]);
  assert.deepEqual((await people()).map((one: any) => one.email), [late]);
  assert.equal((await change({ usersToDelete: [`inv_${"0".repeat(24)}`] })).length, 1);
});

test("the seat of an invitation is released after it was revoked", async () => {
  const { owner, quote, change, seats } = await dialog(2, 1);
  const subscription_id = owner.subscriptionId;
  const { invitation } = await owner.coseat.createInvitation({ subscription_id, email: email() });
  const quoted = await quote(0, 1);
  assert.ok(quoted.sharedSubscriptionQuote?.total < -1000, JSON.stringify(quoted));
  assert.deepEqual(await change({ usersToDelete: [invitation.id] }), []);
  assert.deepEqual([(await seats()).total, (await seats()).used], [1, 1]);
});
