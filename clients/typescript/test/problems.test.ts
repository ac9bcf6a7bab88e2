// Every code that a method of the client can meet is met over HTTP, with its figures.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { CoseatError, type ProblemCode, type ProblemWith } from "@coseat/client";
import {
  admin,
  buy,
  client,
  control,
  eventually,
  newCustomer,
  newLogin,
  newOwner,
  priceOf,
  service,
  stripe,
  tokenFor,
  unique,
} from "coseat-client-checks/service";

interface Case<Code extends ProblemCode> {
  status: number;
  /** Makes the call that is refused. */
  call: () => Promise<unknown>;
  figures?: (problem: ProblemWith<Code>) => void;
}

type Cases = { [Code in ProblemCode]?: Case<Code> };

const TEAM = "sub_demoteam";
const owner = client(service.tokens["owner"]);

async function item(coseat: ReturnType<typeof client>, subscription_id: string): Promise<string> {
  const { subscription } = await coseat.getSubscription({ subscription_id });
  return subscription.items[0]!.id;
}

async function buyOf(coseat: ReturnType<typeof client>, ...price_ids: string[]): Promise<string> {
  return buy(
    coseat,
    price_ids.map((price_id) => ({ price_id })),
  );
}

async function promotionCode(): Promise<string> {
  const coupon = await stripe("POST", "coupons", { percent_off: 10, duration: "forever" });
  const code = unique("CODE").toUpperCase();
  await stripe("POST", "promotion_codes", { code, promotion: { type: "coupon", coupon: coupon.id } });
  return code;
}

/** A subscription on invoices that are sent. Its first one is a draft for an hour. */
async function onInvoices(seats: number): Promise<{ coseat: ReturnType<typeof client>; subscription_id: string }> {
  const { coseat, customerId } = await newCustomer();
  const made = await stripe("POST", "subscriptions", {
    customer: customerId,
    collection_method: "send_invoice",
    days_until_due: 30,
    items: { 0: { price: await priceOf("prod_demoteam"), quantity: seats } },
    metadata: { billing_shared_subscription_owner: customerId },
  });
  await eventually(async () => {
    const { data } = await coseat.getCustomerSubscriptions();
    return data.length > 0 ? true : undefined;
  });
  return { coseat, subscription_id: made.id };
}

const CASES = {
  already_invited: {
    status: 409,
    call: async () => {
      const { coseat, subscriptionId: subscription_id } = await newOwner();
      const email = `${unique("guest")}@example.com`;
      await coseat.createInvitation({ subscription_id, email });
      await coseat.createInvitation({ subscription_id, email });
    },
    figures: ({ invitation_id }) => assert.match(invitation_id, /^inv_/),
  },
  already_member: {
    status: 409,
    call: () => owner.createInvitation({ subscription_id: TEAM, email: "manager@example.com" }),
  },
  already_subscribed: {
    status: 409,
    call: async () => {
      const { coseat } = await newOwner();
      await buyOf(coseat, await priceOf("prod_demoteam"));
    },
    figures: ({ subscription_id }) => assert.match(subscription_id ?? "", /^sub_/),
  },
  card_declined: {
    status: 402,
    call: async () => {
      const { coseat } = await newCustomer();
      await coseat.attachPaymentMethodToCustomer({ payment_method_id: "pm_card_chargeDeclined" });
    },
    figures: ({ decline_code }) => assert.equal(typeof decline_code, "string"),
  },
  currency_mismatch: {
    status: 422,
    call: async () => {
      const { coseat } = await newOwner();
      const items = [{ price_id: await priceOf("prod_demoanalytics") }];
      await coseat.addSubscription({ items, currency: "eur" });
    },
  },
  cursor_expired: { status: 410, call: () => admin().getEvents({ after: "pl_999999999" }) },
  customer_not_linked: { status: 404, call: () => newLogin().coseat.getCustomer() },
  end_ambiguous: {
    status: 422,
    call: async () => {
      const { coseat } = await newCustomer();
      const subscription_id = await buyOf(coseat, await priceOf("prod_demoteam", "year"), await priceOf("prod_demoanalytics"));
      await coseat.cancelSubscription({ subscription_id });
    },
    figures: ({ earliest, latest, further_charges }) => {
      assert.ok(earliest < latest);
      assert.ok(further_charges.length > 0);
    },
  },
  field_not_allowed: {
    status: 403,
    call: async () => {
      const { coseat } = await newCustomer();
      await coseat.addSubscription({ items: [{ price_id: await priceOf("prod_demoteam") }], trial_period_days: 7 });
    },
  },
  idempotency_key_reused: {
    status: 422,
    call: async () => {
      const { coseat } = await newCustomer();
      const idempotencyKey = unique("key");
      await coseat.updateCustomer({ name: "Ada" }, { idempotencyKey });
      await coseat.updateCustomer({ name: "Ben" }, { idempotencyKey });
    },
  },
  identity_conflict: {
    status: 403,
    call: async () => {
      const { subject } = await newCustomer();
      await client(tokenFor(subject, { stripe_customer_id: "cus_demostranger" })).getCustomer();
    },
  },
  invalid_request: {
    status: 422,
    call: () => owner.getSharedSubscriptionUsers({ subscription_id: TEAM, limit: 0 }),
    figures: ({ errors }) => assert.equal(errors?.[0]?.pointer, "query/limit"),
  },
  invitation_ended: {
    status: 409,
    call: async () => {
      const { coseat, subscriptionId: subscription_id } = await newOwner();
      const email = `${unique("guest")}@example.com`;
      const { invitation } = await coseat.createInvitation({ subscription_id, email });
      await coseat.revokeInvitation({ subscription_id, invitation_id: invitation.id });
      await coseat.resendInvitation({ subscription_id, invitation_id: invitation.id });
    },
  },
  invoice_unpaid: {
    status: 409,
    call: async () => {
      const { coseat, subscription_id } = await onInvoices(5);
      await coseat.setSeats({ subscription_id, total: 3 });
    },
    figures: ({ invoice_id, invoice_status, retry_after }) => {
      assert.match(invoice_id ?? "", /^in_/);
      assert.equal(invoice_status, "draft");
      assert.ok((retry_after ?? 0) > 0);
    },
  },
  managed_by_schedule: {
    status: 409,
    call: async () => {
      const { coseat, subscriptionId: subscription_id } = await newOwner();
      await stripe("POST", "subscription_schedules", { from_subscription: subscription_id });
      await eventually(async () => {
        const { subscription } = await coseat.getSubscription({ subscription_id });
        return subscription.schedule_id ?? undefined;
      });
      await coseat.cancelSubscription({ subscription_id });
    },
  },
  mixed_intervals: {
    status: 422,
    call: async () => {
      const product = await stripe("POST", "products", { name: unique("Weekly"), metadata: { billing_sellable: "true" } });
      const price = await stripe("POST", "prices", {
        product: product.id,
        currency: "usd",
        unit_amount: 300,
        recurring: { interval: "week" },
        metadata: { billing_sellable: "true" },
      });
      await eventually(async () => {
        const { data } = await client(undefined).getProducts({ ids: [product.id] });
        return data[0]?.prices[0];
      });
      await buyOf((await newCustomer()).coseat, await priceOf("prod_demoteam"), price.id);
    },
  },
  not_found: { status: 404, call: () => owner.getSubscription({ subscription_id: "sub_absent" }) },
  not_shareable: {
    status: 409,
    call: async () => {
      const { coseat } = await newCustomer();
      const subscription_id = await buyOf(coseat, await priceOf("prod_demoanalytics"));
      await coseat.setSeats({ subscription_id, total: 3 });
    },
  },
  operation_in_progress: {
    status: 409,
    call: async () => {
      const { coseat, customerId, subscriptionId: subscription_id } = await newOwner();
      const path = "payment_methods/pm_card_authenticationRequired/attach";
      const card = await stripe("POST", path, { customer: customerId });
      await stripe("POST", `subscriptions/${subscription_id}`, { default_payment_method: card.id });
      const waiting = await coseat.setSeats({ subscription_id, total: 9 });
      const client_secret = waiting.payment?.client_secret;
      await control("confirm", { client_secret, payment_method: "pm_usBankAccount" });
      await coseat.setSeats({ subscription_id, total: 8 });
    },
  },
  operation_ended: {
    status: 409,
    call: async () => {
      const { coseat, subscriptionId: subscription_id } = await newOwner();
      const { operation_id } = await coseat.setSeats({ subscription_id, total: 4 });
      await coseat.cancelOperation({ operation_id: operation_id ?? "" });
    },
  },
  owner_cannot_leave: { status: 409, call: () => owner.leaveSharedSubscription({ subscription_id: TEAM }) },
  payload_too_large: { status: 413, call: () => owner.updateCustomer({ name: "x".repeat(70_000) }) },
  payment_method_in_use: {
    status: 409,
    call: async () => {
      const { coseat } = await newOwner();
      const { data } = await coseat.getCustomerPaymentMethods();
      await coseat.detachPaymentMethodFromCustomer({ payment_method_id: data[0]!.id });
    },
  },
  price_not_available: {
    status: 422,
    call: async () => {
      const { coseat } = await newCustomer();
      await coseat.addSubscription({ items: [{ price_id: "price_absent" }] });
    },
  },
  promotion_code_in_use: {
    status: 409,
    call: async () => {
      const { coseat, subscriptionId: subscription_id } = await newOwner();
      await coseat.updateSubscription({ subscription_id, promotion_code: await promotionCode() });
      await coseat.updateSubscription({ subscription_id, promotion_code: await promotionCode() });
    },
  },
  quote_expired: {
    status: 409,
    call: async () => {
      const { coseat, subscriptionId: subscription_id } = await newOwner();
      const { quote_id } = await coseat.quoteSeats({ subscription_id, total: 5 });
      await coseat.setSeats({ subscription_id, total: 5, quote_id });
      await coseat.setSeats({ subscription_id, total: 5, quote_id });
    },
  },
  rate_limited: {
    status: 429,
    call: async () => {
      const { coseat } = await newCustomer();
      for (;;) await Promise.all([1, 2, 3].map(() => coseat.createCustomer()));
    },
  },
  request_in_progress: {
    status: 409,
    call: async () => {
      const { coseat, customerId } = await newCustomer();
      await control("faults", { method: "POST", object: customerId, latency_s: 2 });
      const idempotencyKey = unique("key");
      const both = [1, 2].map(() => coseat.updateCustomer({ name: "Ada" }, { idempotencyKey }));
      await Promise.allSettled(both);
      await Promise.all(both);
    },
  },
  role_required: {
    status: 403,
    call: () => client(service.tokens["member"]).createInvitation({ subscription_id: TEAM, email: "new@example.com" }),
  },
  scope_required: { status: 403, call: () => owner.getEvents() },
  seat_item_ambiguous: {
    status: 422,
    call: async () => {
      const { coseat } = await newCustomer();
      const subscription_id = await buyOf(coseat, await priceOf("prod_demoteam"), await priceOf("prod_demoscale"));
      await coseat.setSeats({ subscription_id, total: 4 });
    },
  },
  seat_limit_reached: {
    status: 409,
    call: async () => {
      const { coseat, subscriptionId: subscription_id } = await newOwner(1);
      const add = [1, 2].map(() => ({ email: `${unique("member")}@example.com` }));
      await coseat.updateSharedSubscriptionUsers({ subscription_id, add });
    },
    figures: ({ total, used, required }) => assert.deepEqual([total, used, required], [1, 0, 2]),
  },
  seats_in_use: {
    status: 409,
    call: async () => {
      const { coseat, subscriptionId: subscription_id } = await newOwner(3);
      const add = [1, 2].map(() => ({ email: `${unique("member")}@example.com` }));
      await coseat.updateSharedSubscriptionUsers({ subscription_id, add });
      await coseat.setSeats({ subscription_id, total: 1 });
    },
    figures: ({ used, requested }) => assert.deepEqual([used, requested], [2, 1]),
  },
  stripe_rejected: {
    status: 502,
    call: async () => {
      const { coseat, customerId } = await newCustomer();
      await control("faults", { method: "POST", object: customerId, status: 400, code: "parameter_unknown" });
      await coseat.updateCustomer({ name: "Ada" });
    },
    figures: ({ stripe_code }) => assert.equal(stripe_code, "parameter_unknown"),
  },
  stripe_unavailable: {
    status: 503,
    call: async () => {
      const { coseat, customerId } = await newCustomer();
      await control("faults", { method: "POST", object: customerId, status: 500, times: 0 });
      await coseat.updateCustomer({ name: "Ada" });
    },
  },
  subscription_not_active: {
    status: 409,
    call: async () => {
      const { coseat, subscriptionId: subscription_id } = await newOwner();
      await coseat.cancelSubscription({ subscription_id, when: "now" });
      await coseat.setSeats({ subscription_id, total: 4 });
    },
  },
  too_many_declines: {
    status: 429,
    call: async () => {
      const { coseat } = await newCustomer();
      const declined = () => coseat.attachPaymentMethodToCustomer({ payment_method_id: "pm_card_chargeDeclined" });
      for (let count = 0; count < 5; count++) await assert.rejects(declined, { code: "card_declined" });
      await declined();
    },
  },
  too_many_in_flight: {
    status: 429,
    call: async () => {
      const { coseat } = await newCustomer();
      const prices = [
        await priceOf("prod_demoteam"),
        await priceOf("prod_demoteam", "year"),
        await priceOf("prod_demoanalytics"),
        await priceOf("prod_demoscale"),
      ];
      for (const price_id of prices) await coseat.addSubscription({ items: [{ price_id }] });
    },
    figures: ({ subscription_ids }) => assert.equal(subscription_ids?.length, 3),
  },
  unauthenticated: {
    status: 401,
    call: () => client(tokenFor("somebody", { exp: 1_700_000_000 })).getCustomer(),
    figures: ({ reason }) => assert.equal(reason, "expired"),
  },
  unknown_parameter: {
    status: 422,
    call: () => owner.getCustomerInvoices({ page: 2 } as object),
  },
  unsecured_raise_limit: {
    status: 409,
    call: async () => {
      const { coseat, subscription_id } = await onInvoices(10);
      await coseat.setSeats({ subscription_id, total: 30 });
    },
    figures: ({ allowed }) => assert.equal(typeof allowed, "number"),
  },
  version_conflict: {
    status: 412,
    call: async () => {
      const { coseat, subscriptionId: subscription_id } = await newOwner();
      const items = [{ id: await item(coseat, subscription_id), quantity: 4 }];
      await coseat.updateSubscription({ subscription_id, items }, { ifMatch: '"another"' });
    },
  },
} satisfies Cases;

/** The codes that no method of the client meets at `coseat dev`, each with the test that covers it. */
const ELSEWHERE: Record<Exclude<ProblemCode, keyof typeof CASES>, string> = {
  ambiguous_email: "sharing/test_member_changes.py::test_an_ambiguous_email_adds_nobody",
  cannot_be_added: "sharing/test_several_subscriptions.py::test_additions_are_refused_when_the_limit_is_reached",
  changed_meanwhile:
    "exactly_once/test_operations_faults.py::test_what_came_about_behind_a_500_and_was_undone_is_not_done_again",
  database_unavailable: "availability/test_overload.py::test_a_database_whose_connections_are_all_in_use",
  duplicate_header: "adversary/test_doubled_headers.py::test_a_doubled_header_is_refused_on_every_route",
  identity_provider_unavailable: "identity/test_jwks.py::test_outage_keeps_the_last_good_set_for_an_hour",
  internal_error: "api/test_own_faults.py::test_a_fault_of_the_service_is_an_internal_error",
  invalid_webhook: "api/test_bad_input.py::test_webhooks_that_stripe_did_not_sign",
  invitation_for_another:
    "sharing/test_invitations.py::test_an_invitation_is_bound_to_its_address_when_the_setting_says_so",
  invitations_unavailable: "sharing/test_invitations.py::test_a_rotated_secret_still_verifies_and_a_dropped_one_does_not",
  member_elsewhere: "sharing/test_member_changes.py::test_member_elsewhere_is_told_to_service_keys_alone",
  method_not_allowed: "api/test_bad_input.py::test_other_methods_are_not_allowed",
  not_filled: "events/test_feed.py::test_snapshot_is_refused_until_the_copy_is_filled",
  operation_expired: "money/test_accepted.py::test_who_asks_again_for_what_failed_meanwhile_is_told_why",
  overloaded: "availability/test_overload.py::test_so_many_at_work_so_many_waiting_and_the_rest_refused",
  paid_without_effect: "money/test_waiting_purchases.py::test_alarm_is_raised_when_a_paid_change_never_showed",
  payment_abandoned:
    "money/test_lost_rights.py::test_purchase_ends_at_once_when_its_buyer_gives_the_subscription_away",
  payment_action_required:
    "money/test_waiting_review.py::test_repeated_request_is_told_that_nobody_paid_when_its_purchase_was_ended",
  request_timeout: "operating/test_http_server.py::test_slow_connections_are_ended_and_hold_nobody_up",
  stripe_limit_reached: "availability/test_rate_limits.py::test_seats_changed_more_often_than_stripe_takes",
  unsupported_media_type: "api/test_bad_input.py::test_other_media_types_are_refused",
  update_expired: "money/test_waiting_purchases.py::test_purchase_expires_when_stripe_drops_the_update",
  webhooks_unavailable: "api/test_own_faults.py::test_no_endpoint_is_made_without_a_key_for_its_secret",
};

test("each code of the document is met here or covered by a test that exists", async () => {
  const document = JSON.parse(await readFile("openapi/openapi.json", "utf8"));
  const stated = Object.keys(document.components.schemas.AnyProblem.discriminator.mapping);
  assert.deepEqual([...Object.keys(CASES), ...Object.keys(ELSEWHERE)].sort(), stated.sort());
  for (const name of Object.values(ELSEWHERE)) {
    const [file = "", test = ""] = name.split("::");
    assert.match(await readFile(`tests/${file}`, "utf8"), new RegExp(`^(async )?def ${test}\\(`, "m"), name);
  }
});

test("each problem is met", { concurrency: 4 }, async (group) => {
  const cases = Object.entries(CASES) as [ProblemCode, Case<ProblemCode>][];
  await Promise.all(
    cases.map(([code, { status, call, figures }]) =>
      group.test(code, async () => {
        const error = await call().then(
          () => assert.fail(`${code} was not answered`),
          (caught: unknown) => caught,
        );
        assert.ok(error instanceof CoseatError, String(error));
        assert.deepEqual([error.code, error.status], [code, status], error.message);
        figures?.(error.problem);
      }),
    ),
  );
});
