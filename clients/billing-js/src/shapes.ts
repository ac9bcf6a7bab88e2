// The API's objects in the shapes that the Billing.js client reads. Times are seconds, amounts minor units.
import type { Schemas } from "@coseat/client";

type Customer = Schemas["Customer"];
type Subscription = Schemas["Subscription"];
type Item = Schemas["SubscriptionItem"];
type Price = Schemas["Price"] | Schemas["ItemPrice"];

const seconds = (time: string | null): number | null => (time === null ? null : Math.floor(Date.parse(time) / 1000));

function productOf(product: { id: string; name: string | null; supports_shared_subscriptions: boolean }): object {
  const { id, name, supports_shared_subscriptions: isShared } = product;
  return { id, name, unit_label: null, metadata: isShared ? { billing_supports_shared_subscriptions: "true" } : {} };
}

function priceOf(price: Price, product: object): object {
  const { id, currency, billing_scheme, unit_amount, tiers_mode, tiers, transform_quantity, recurring } = price;
  return {
    id,
    currency,
    billing_scheme,
    unit_amount,
    tiers_mode,
    tiers: tiers ?? [],
    transform_quantity,
    recurring: recurring && { ...recurring, trial_period_days: null },
    product,
  };
}

/** A product with its recurring prices: the client cannot choose between others. */
export function product(product: Schemas["Product"]): object {
  const shape = { ...productOf(product), unit_label: product.unit_label };
  const recurring = product.prices.filter((price) => price.recurring !== null);
  return { ...shape, pricings: recurring.map((price) => priceOf(price, shape)) };
}

/** The profile. Only the role `manager` makes its reader a manager in the portal. */
export function customer(customer: Customer, isManager: boolean): object {
  const { id, email, name, balance, currency } = customer;
  return {
    id,
    email,
    name,
    balance,
    currency,
    address: null,
    tax_ids: { data: [] },
    invoice_settings: { default_payment_method: customer.default_payment_method_id },
    metadata: isManager ? { billing_shared_subscription_role: "manager" } : {},
  };
}

/** The licences as the client counts them: all quantities, shareable or not. */
export function licences(subscription: Subscription): number {
  return subscription.items.reduce((sum, item) => sum + (item.quantity ?? 0), 0);
}

/** The items, the one that gives seats first. A user sees that one only, because amounts are hidden from users. */
function shownItems(subscription: Subscription): Item[] {
  const givesSeats = (item: Item) => Number(item.product.supports_shared_subscriptions);
  const sorted = [...subscription.items].sort((one, other) => givesSeats(other) - givesSeats(one));
  return subscription.role === "user" ? sorted.slice(0, 1) : sorted;
}

/** A payment that the portal offers to complete, on Stripe's page. A list has no secret. */
const DUE = { status: "requires_payment_method", client_secret: null, payment_method: null };

/** What is left to pay, if the caller may see it: of a purchase that waits, or of the latest invoice. */
function latestInvoice(pending: Subscription["pending_change"], invoice: Schemas["Invoice"] | null): object | null {
  const payment = pending?.payment;
  if (payment?.hosted_invoice_url && payment.status !== "processing") {
    return { id: pending?.operation_id, hosted_invoice_url: payment.hosted_invoice_url, payment_intent: DUE };
  }
  if (invoice === null) return null;
  const isDue = invoice.status === "open" && invoice.amount_remaining > 0 && invoice.hosted_invoice_url !== null;
  return { id: invoice.id, hosted_invoice_url: invoice.hosted_invoice_url, payment_intent: isDue ? DUE : null };
}

/** A subscription as `me` sees it. `invoice` is its latest one, if something may be left to pay of it. */
export function subscription(one: Subscription, me: Customer, invoice: Schemas["Invoice"] | null): object {
  const items = shownItems(one);
  const first = items[0];
  const [next] = [...items].sort((left, right) =>
    String(left.current_period_end).localeCompare(String(right.current_period_end)),
  );
  const end = next?.current_period_end ?? null;
  const owner = one.shared?.owner ?? null;
  const isMine = one.role === "owner" || one.customer_id === me.id;
  const discount = one.discounts?.find(({ percent_off, amount_off }) => percent_off !== null || amount_off !== null);
  return {
    id: one.id,
    status: one.status,
    currency: one.currency,
    start_date: seconds(one.start_date),
    created: seconds(one.created),
    createdAt: seconds(one.created),
    trial_end: seconds(one.trial_end),
    canceled_at: seconds(one.canceled_at),
    cancel_at: seconds(one.cancel_at ?? (one.cancel_at_period_end ? end : null)),
    current_period_start: seconds(next?.current_period_start ?? null),
    current_period_end: seconds(end),
    customer:
      one.role === "owner" || owner === null
        ? { id: isMine ? me.id : one.customer_id, email: isMine ? me.email : null }
        : { id: owner.customer_id, email: owner.email },
    metadata: owner === null ? {} : { billing_shared_subscription_owner: owner.customer_id },
    items: {
      data: items.map(({ id, quantity, price, product }) => ({
        id,
        quantity: quantity ?? 0,
        price: priceOf(price, productOf(product)),
      })),
    },
    plan: first && {
      amount: first.price.unit_amount,
      interval: first.price.recurring?.interval,
      currency: first.price.currency,
      product: { metadata: {} },
    },
    discount: discount ? { coupon: coupon(discount) } : null,
    latest_invoice: latestInvoice(one.pending_change, invoice),
  };
}

export function coupon({ percent_off, amount_off }: { percent_off: number | null; amount_off: number | null }): object {
  return { valid: true, percent_off, amount_off };
}

/** An invoice with one line: the client calls an invoice with several ones "Licenses added" or "credited". */
export function invoice(one: Schemas["Invoice"]): object {
  const line = one.lines.find(({ amount }) => amount > 0) ?? one.lines[0];
  const more = one.lines.length > 1 ? ` and ${one.lines.length - 1} more` : "";
  return {
    id: one.id,
    total: one.total,
    currency: one.currency,
    status: one.status,
    created: seconds(one.created),
    hosted_invoice_url: one.hosted_invoice_url,
    invoice_pdf: one.invoice_pdf,
    charge: one.amount_paid > 0 ? { refunded: false, description: null } : null,
    lines: { data: line ? [{ description: `${line.description ?? ""}${more}` }] : [] },
  };
}

export function paymentMethod(method: Schemas["PaymentMethod"], owner: object | string): object {
  return { id: method.id, type: method.type, card: method.card, customer: owner, billing_details: {} };
}

/** A person of a team. An invited person has no customer yet, and a person who is being added has no id at all. */
export function person(one: Schemas["Person"], subscriptionId: string): object {
  return {
    stripeCustomer: one.customer_id ?? one.invitation_id,
    email: one.email,
    name: one.name,
    role: one.role,
    createdAt: one.since === null ? 0 : Date.parse(one.since),
    sharedSubscriptionId: subscriptionId,
  };
}
