// The calls of the Billing.js client, by name. Each returns the JSON object that the client reads.
import { type Client, isProblem, type Schemas } from "@coseat/client";
import { type Operation, outcome } from "./outcomes.ts";
import * as people from "./people.ts";
import * as shapes from "./shapes.ts";

/** Refuses a call with a status and a text that the client shows. */
export class Refusal extends Error {
  readonly status: number;

  constructor(status: number, text: string) {
    super(text);
    this.status = status;
  }
}

/** What a page remembers between calls. It is gone with the page. */
export interface Memory {
  quotes: people.Quotes;
  /** The cursor after the last invoice of a page. */
  invoices: Map<string, string>;
  defaultCurrency: string;
}

type Body = any;
type Call = (coseat: Client, body: Body, memory: Memory) => Promise<object>;

const INVOICES = 10;
// An invoice is read only where something may be left to pay.
const UNPAID = ["incomplete", "past_due", "unpaid"];

/** The caller's customer, or null if there is none yet. */
export async function me(coseat: Client): Promise<Schemas["Customer"] | null> {
  try {
    return (await coseat.getCustomer()).customer;
  } catch (error) {
    if (isProblem(error, "customer_not_linked")) return null;
    if (isProblem(error, "not_found")) throw new Refusal(404, "Customer no longer exists");
    throw error;
  }
}

async function all<Entry>(pages: AsyncIterable<Entry>): Promise<Entry[]> {
  const entries: Entry[] = [];
  for await (const entry of pages) entries.push(entry);
  return entries;
}

async function profile(coseat: Client, own: Schemas["Customer"]): Promise<object> {
  const subscriptions = await all(coseat.getCustomerSubscriptions({ role: "manager" }));
  return shapes.customer(own, subscriptions.length > 0);
}

async function latestInvoice(coseat: Client, one: Schemas["Subscription"]): Promise<Schemas["Invoice"] | null> {
  if (one.latest_invoice_id === null || !UNPAID.includes(one.status)) return null;
  try {
    return (await coseat.getInvoice({ invoice_id: one.latest_invoice_id })).invoice;
  } catch (error) {
    if (isProblem(error, "not_found") || isProblem(error, "role_required")) return null;
    throw error;
  }
}

async function shown(coseat: Client, one: Schemas["Subscription"], own: Schemas["Customer"]): Promise<object> {
  return shapes.subscription(one, own, await latestInvoice(coseat, one));
}

/** Waits for a change that still runs, at most until it waits for a payment. Refuses the call if a part was refused. */
async function finished<Done extends { pending: false }>(
  coseat: Client,
  call: Promise<Done | Schemas["AcceptedOperation"]>,
): Promise<Done | Operation> {
  const answer = await call;
  if (!answer.pending) return answer;
  const seen = await outcome(coseat, answer);
  if (seen.state === "running") throw new Refusal(503, "This takes longer than usual. Look again in a few minutes.");
  const refused = seen.results.find(({ outcome }) => outcome === "refused" || outcome === "failed");
  if (refused === undefined) return seen;
  const code = refused.code ?? "";
  throw new Refusal(code === "card_declined" ? 402 : 409, people.textOf(code, null));
}

type Changed = Schemas["ChangedSubscription"] | Operation;

/** Returns the subscription of a change, or null while it waits for its payment: its operation stands for the invoice then. */
async function subscriptionOf(coseat: Client, changed: Changed): Promise<Schemas["Subscription"] | null> {
  if ("subscription" in changed) return changed.subscription;
  const subscription_id = changed.results[0]?.subscription_id;
  if (changed.state !== "settled" || !subscription_id) return null;
  return (await coseat.getSubscription({ subscription_id })).subscription;
}

const changedId = ({ subscriptionId }: Body) => ({ id: subscriptionId });

export const CALLS: Record<string, Call> = {
  async getProducts(coseat, { productIds }) {
    const { data } = await coseat.getProducts({ ids: productIds });
    return { products: data.map(shapes.product) };
  },
  async getLocalCurrency(coseat, _, { defaultCurrency }) {
    const own = await me(coseat).catch(() => null);
    return { localCurrency: (own?.currency ?? defaultCurrency).toUpperCase() };
  },
  async getCustomerProfile(coseat) {
    const own = await me(coseat);
    return { customer: own && (await profile(coseat, own)) };
  },
  async getCustomerSubscriptions(coseat) {
    const own = await me(coseat);
    if (own === null) return { subscriptions: [] };
    const found = await all(coseat.getCustomerSubscriptions());
    return { subscriptions: await Promise.all(found.map((one) => shown(coseat, one, own))) };
  },
  async getCustomerPaymentMethods(coseat) {
    const own = await me(coseat);
    if (own === null) return { paymentMethods: [] };
    const owner = await profile(coseat, own);
    const cards = await all(coseat.getCustomerPaymentMethods({ type: "card" }));
    return { paymentMethods: cards.map((card) => shapes.paymentMethod(card, owner)) };
  },
  async getCustomerInvoices(coseat, { startingAfter }, memory) {
    const cursor = memory.invoices.get(startingAfter);
    if (startingAfter && cursor === undefined) throw new Refusal(400, "There is no such invoice.");
    if ((await me(coseat)) === null) return { invoices: [], hasMore: false };
    const page = await coseat.getCustomerInvoices({ limit: INVOICES, ...(cursor ? { cursor } : {}) });
    const last = page.data.at(-1);
    if (last && page.next_cursor) memory.invoices.set(last.id, page.next_cursor);
    return { invoices: page.data.map(shapes.invoice), hasMore: page.has_more };
  },
  async addSubscription(coseat, { items, paymentMethodId, code }) {
    const purchase = coseat.addSubscription({
      items: items.map(({ price, quantity }: Body) => ({ price_id: price, quantity })),
      ...(paymentMethodId ? { payment_method_id: paymentMethodId } : {}),
      ...(code ? { promotion_code: code } : {}),
    });
    const bought = await finished(coseat, purchase);
    const subscription = await subscriptionOf(coseat, bought);
    if (subscription === null) {
      const id = "results" in bought ? (bought.results[0]?.subscription_id ?? null) : null;
      return { id, status: "incomplete", latest_invoice: bought.operation_id };
    }
    const { id, status, latest_invoice_id } = subscription;
    return { id, status, latest_invoice: latest_invoice_id };
  },
  async updateSubscription(coseat, { subscriptionId, paymentMethodId, items }) {
    const change = coseat.updateSubscription({
      subscription_id: subscriptionId,
      items: items.map(({ id, quantity, price }: Body) => ({ id, quantity, price_id: price })),
      ...(paymentMethodId ? { payment_method_id: paymentMethodId } : {}),
    });
    const changed = await finished(coseat, change);
    const subscription = await subscriptionOf(coseat, changed);
    return subscription === null
      ? { id: subscriptionId, status: "incomplete", latest_invoice: changed.operation_id }
      : { id: subscriptionId, status: subscription.status, latest_invoice: null };
  },
  async cancelSubscription(coseat, body) {
    const when = body.cancelNow ? "now" : "period_end";
    await finished(coseat, coseat.cancelSubscription({ subscription_id: body.subscriptionId, when }));
    return changedId(body);
  },
  async dontCancelSubscription(coseat, body) {
    await finished(coseat, coseat.resumeSubscription({ subscription_id: body.subscriptionId }));
    return changedId(body);
  },
  async applyPromotionCodeToSubscription(coseat, body) {
    await finished(coseat, coseat.updateSubscription({ subscription_id: body.subscriptionId, promotion_code: body.code }));
    return changedId(body);
  },
  async validatePromotionCode(coseat, { code }) {
    try {
      const { promotion_code } = await coseat.getPromotionCode({ code });
      return { promotionCode: { code: promotion_code.code, coupon: shapes.coupon(promotion_code) } };
    } catch (error) {
      if (isProblem(error, "not_found")) throw new Refusal(404, "There is no such promotion code.");
      throw error;
    }
  },
  async attachPaymentMethodToCustomer(coseat, { paymentMethodId, useAsDefault, customerName }) {
    const { payment_method } = await coseat.attachPaymentMethodToCustomer({
      payment_method_id: paymentMethodId,
      use_as_default: Boolean(useAsDefault),
    });
    if (customerName) await coseat.updateCustomer({ name: customerName });
    // Without the customer's id the client would silently not go on.
    return { paymentMethod: shapes.paymentMethod(payment_method, (await me(coseat))?.id ?? "") };
  },
  async detachPaymentMethodFromCustomer(coseat, { paymentMethodId }) {
    await coseat.detachPaymentMethodFromCustomer({ payment_method_id: paymentMethodId });
    return {};
  },
  async setPaymentMethodAsDefault(coseat, { paymentMethodId }) {
    await coseat.setPaymentMethodAsDefault({ payment_method_id: paymentMethodId });
    return {};
  },
  async getClientSecret(coseat) {
    if ((await me(coseat)) === null) await coseat.createCustomer();
    const { setup_intent } = await coseat.createSetupIntent();
    return { clientSecret: setup_intent.client_secret };
  },
  async getSubscriptionInvoice(coseat, { invoiceId }) {
    if (!String(invoiceId).startsWith("op_")) throw new Refusal(404, "Open the page of the invoice to pay it.");
    const { payment } = await coseat.getOperation({ operation_id: invoiceId });
    if (payment === null) throw new Refusal(503, "The payment cannot be read now. Look again in a few minutes.");
    const { client_secret, payment_method_id: payment_method, status, hosted_invoice_url } = payment;
    return { invoice: { id: invoiceId, hosted_invoice_url, payment_intent: { client_secret, payment_method, status } } };
  },
  async getSharedSubscription(coseat, { subscriptionId }) {
    const own = await me(coseat);
    try {
      const { subscription } = await coseat.getSharedSubscription({ subscription_id: subscriptionId });
      return { subscription: own && (await shown(coseat, subscription, own)) };
    } catch (error) {
      if (isProblem(error, "not_found") || isProblem(error, "customer_not_linked")) return { subscription: null };
      throw error;
    }
  },
  getSharedSubscriptionUsers: (coseat, body) => people.users(coseat, body),
  getSharedSubscriptionQuote: (coseat, body, { quotes }) => people.quote(coseat, quotes, body),
  async updateSharedSubscriptionUsers(coseat, body, { quotes }) {
    const { subscriptionId, usersToAdd = [], usersToDelete = [], usersRoleUpdates = [] } = body;
    const asked = { subscriptionId, usersToAdd, usersToDelete, usersRoleUpdates };
    return { data: { errors: await people.change(coseat, quotes, asked) } };
  },
  async setCustomerBillingDetails(coseat, { name }) {
    const { customer } = name ? await coseat.updateCustomer({ name }) : await coseat.getCustomer();
    if (!name && customer.name) throw new Refusal(422, "A name can be changed, but not removed.");
    return { customerProfile: await profile(coseat, customer) };
  },
  async setCustomerTaxId(_, { taxId }) {
    if (taxId !== null) throw new Refusal(501, "Tax ids are not kept here.");
    return {};
  },
  async updateCustomerEmail() {
    throw new Refusal(403, "Sign in with the new e-mail first.");
  },
  async checkCustomerEmail() {
    throw new Refusal(403, "Sign in first.");
  },
  async refundSubscription() {
    throw new Refusal(501, "Refunds are not made here.");
  },
};
