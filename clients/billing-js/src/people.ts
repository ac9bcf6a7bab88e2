// People and licences: the client reckons how many are bought or released, and nothing happens at another price.
import { type Client, isProblem, type Schemas } from "@coseat/client";
import { outcome } from "./outcomes.ts";
import { licences, person } from "./shapes.ts";

type Subscription = Schemas["Subscription"];
type Outcome = Schemas["ChangeResult"]["outcome"];

interface Shown {
  quoteId: string;
  total: number;
  credit: number;
}

/** The quotes that were shown in this page, the newest of each subscription. */
export type Quotes = Map<string, Shown>;

export interface Change {
  subscriptionId: string;
  usersToAdd: string[];
  /** Ids as `shapes.person` gives them: of customers and of invitations, and null for people who are being added. */
  usersToDelete: (string | null)[];
  usersRoleUpdates: { stripeCustomer: string | null; role: "manager" | "user" }[];
}

const TEXTS: Record<string, string> = {
  seat_limit_reached: "there is no free seat. Close this window and add people one at a time to see the price.",
  cannot_be_added: "this person cannot be added.",
  member_elsewhere: "this person cannot be added.",
  already_member: "on the plan already, in another role.",
  ambiguous_email: "more than one customer has this address.",
  card_declined: "The card was declined.",
  role_required: "Your role does not allow this.",
  quote_expired: "The price has changed. Close this window and try again.",
};
const WAIT = "Please try again in a moment.";
const WAITS = ["operation_in_progress", "stripe_unavailable", "rate_limited"];
const PAY = "The payment has to be confirmed before seats are added. Close this window and choose Complete payment.";
const PAYER_PAYS = "The seats are added once the payer has confirmed the payment.";
const NOT_READ = "The seats are added once their payment is confirmed. Look for Complete payment in a few minutes.";
const INVITED = "The role of an invited person is changed once the invitation was accepted.";
const MOST_CHANGES = 100;
/** A team that cannot be read has no free licence. */
const NO_LICENCE_FREE = 1_000_000;
/** A credit falls while a dialog is open. More than this share of it is another price. */
const CREDIT_LOSS = 0.01;

async function read(coseat: Client, subscription_id: string): Promise<Subscription> {
  return (await coseat.getSharedSubscription({ subscription_id })).subscription;
}

const seatsOf = ({ shared }: Subscription) => shared?.seats ?? { total: 0, used: 0, available: 0 };

/** Returns a page of a team. It never fails, because the client's page would go blank. */
export async function users(
  coseat: Client,
  { subscriptionId, searchFilter, limit = 10, page }: { subscriptionId: string; searchFilter?: string; limit?: number; page?: string },
): Promise<object> {
  let all = NO_LICENCE_FREE;
  try {
    const subscription = await read(coseat, subscriptionId);
    all = licences(subscription);
    const { data, seats, next_cursor } = await coseat.getSharedSubscriptionUsers({
      subscription_id: subscriptionId,
      limit,
      ...(searchFilter ? { search: searchFilter } : {}),
      ...(page ? { cursor: page } : {}),
    });
    const others = data.filter(({ role }) => role !== "owner" || subscription.role !== "owner");
    // The client takes all licences but this number, and the owner's, as free.
    const totalCount = all - seats.available - 1;
    return { users: others.map((one) => person(one, subscriptionId)), totalCount, nextPage: next_cursor };
  } catch {
    return { users: [], totalCount: all - 1, nextPage: null };
  }
}

/** Returns what a change of licences costs, and remembers it: only this price may be charged. */
export async function quote(
  coseat: Client,
  quotes: Quotes,
  { subscriptionId, licensesToAdd, licensesToRemove }: { subscriptionId: string; licensesToAdd: number; licensesToRemove: number },
): Promise<object> {
  const subscription = await read(coseat, subscriptionId);
  const seats = seatsOf(subscription);
  const total = seats.total + licensesToAdd - licensesToRemove;
  const seen =
    total < seats.total - seats.available
      ? await quoteOfRelease(coseat, subscriptionId, licensesToRemove)
      : await coseat.quoteSeats({ subscription_id: subscriptionId, total });
  quotes.set(subscriptionId, { quoteId: seen.quote_id, total, credit: seen.credit });
  const now = seen.credit > 0 ? -seen.credit : seen.amount_due_now;
  const discount = subscription.discounts?.find(({ percent_off }) => percent_off !== null);
  return {
    sharedSubscriptionQuote: {
      total: subscription.status === "trialing" ? (seen.next_total ?? now) : now,
      discount: discount ? { coupon: { percent_off: discount.percent_off } } : null,
    },
  };
}

/** Returns the credit of releasing licences that are in use. It does not depend on whose licences they are. */
async function quoteOfRelease(coseat: Client, subscription_id: string, count: number): Promise<Schemas["QuoteAnswer"]> {
  const remove: string[] = [];
  for await (const { customer_id, role } of coseat.getSharedSubscriptionUsers({ subscription_id })) {
    if (customer_id !== null && role !== "owner") remove.push(customer_id);
    if (remove.length === count) break;
  }
  return coseat.quoteSeats({ subscription_id, remove, release_seats: true });
}

/** How many licences the client takes as bought and released, from figures read now. */
export function reckoned(free: number, added: number, removed: number): { buy: number; release: number } {
  const reassign = Math.min(removed, added);
  const assign = Math.min(free, added - reassign);
  const unassign = Math.min(free, removed - reassign);
  return { buy: added - reassign - assign, release: removed - reassign - unassign };
}

const isInvitation = (id: string | null): id is string => id?.startsWith("inv_") ?? false;
const isCustomer = (id: string | null): id is string => id !== null && !isInvitation(id);

/** The parts of a change that can be made, and a text for those that cannot. */
function partsOf({ usersToAdd, usersToDelete, usersRoleUpdates }: Change) {
  const updated = usersRoleUpdates.map(({ stripeCustomer }) => stripeCustomer);
  return {
    add: [...new Set(usersToAdd.map((email) => email.trim().toLowerCase()))].map((email) => ({ email })),
    revoke: usersToDelete.filter(isInvitation),
    remove: usersToDelete.filter(isCustomer),
    update: usersRoleUpdates.flatMap(({ stripeCustomer, role }) =>
      isCustomer(stripeCustomer) ? [{ customer_id: stripeCustomer, role }] : [],
    ),
    errors: [
      ...(updated.some(isInvitation) ? [INVITED] : []),
      // A person who is being added has no id yet.
      ...([...usersToDelete, ...updated].includes(null) ? [WAIT] : []),
    ],
  };
}

/** Changes a team. Returns one text for each part that was refused, or for the refusal of all. */
export async function change(coseat: Client, quotes: Quotes, asked: Change): Promise<string[]> {
  const subscription_id = asked.subscriptionId;
  const { add, revoke, remove, update, errors } = partsOf(asked);
  const count = add.length + revoke.length + remove.length + update.length;
  if (count === 0) return errors;
  if (count > MOST_CHANGES) return [`At most ${MOST_CHANGES} changes can be made at once.`];
  try {
    const seats = seatsOf(await read(coseat, subscription_id));
    const { buy, release } = reckoned(seats.available, add.length, revoke.length + remove.length);
    const shown = quotes.get(subscription_id);
    const isBought = buy > 0 && shown?.total === seats.total + buy;
    const refused = await revoked(coseat, subscription_id, revoke);
    errors.push(...refused);
    const outcomes: Outcome[] = refused.map(() => "refused");
    if (count > revoke.length) {
      const answer = await coseat.updateSharedSubscriptionUsers({
        subscription_id,
        ...(add.length > 0 ? { add } : {}),
        ...(remove.length > 0 ? { remove } : {}),
        ...(update.length > 0 ? { update } : {}),
        ...(isBought ? { over_capacity: "add_seats" as const, quote_id: shown.quoteId } : {}),
      });
      const changed = answer.pending ? await outcome(coseat, answer) : answer;
      errors.push(...texts(changed.results));
      if (changed.state === "awaiting_payment") errors.push(left(changed.payment));
      outcomes.push(...changed.results.filter(({ action }) => action === "remove").map(({ outcome }) => outcome));
    }
    if (release > 0 && shown?.total === seats.total - release) {
      errors.push(...(await released(coseat, subscription_id, shown, outcomes)));
    }
  } catch (error) {
    errors.push(...refusal(error));
  } finally {
    quotes.delete(subscription_id);
  }
  return errors;
}

/** Revokes invitations, so that their seats are free. Returns a text for each that was refused. */
async function revoked(coseat: Client, subscription_id: string, ids: string[]): Promise<string[]> {
  const errors: string[] = [];
  for (const invitation_id of ids) {
    await coseat.revokeInvitation({ subscription_id, invitation_id }).catch((error) => errors.push(...refusal(error)));
  }
  return errors;
}

/** Gives seats back at the credit that was shown. It is a change of its own: if it fails, the seats stay. */
async function released(
  coseat: Client,
  subscription_id: string,
  { total, credit }: Shown,
  removals: Outcome[],
): Promise<string[]> {
  if (removals.includes("pending")) return ["The people are being removed, and their seats are kept."];
  if (removals.some((outcome) => outcome !== "applied")) return ["The seats were kept."];
  const STAY = "The people were removed, and their seats were kept.";
  try {
    const now = await coseat.quoteSeats({ subscription_id, total });
    if (now.credit < credit * (1 - CREDIT_LOSS) - 1) return [`${STAY} The price has changed.`];
    const answer = await coseat.setSeats({ subscription_id, total, quote_id: now.quote_id });
    const set = answer.pending ? await outcome(coseat, answer) : answer;
    return "results" in set ? texts(set.results).map((text) => `${STAY} ${text}`) : [];
  } catch (error) {
    return [`${STAY} ${refusal(error)[0]}`];
  }
}

/** Returns what the person who bought seats can do about the payment that is left. */
function left(payment: Schemas["Payment"] | null): string {
  if (payment === null) return NOT_READ;
  return payment.hosted_invoice_url ? PAY : PAYER_PAYS;
}

function texts(results: Schemas["ChangeResult"][]): string[] {
  return results
    .filter(({ outcome }) => outcome === "refused" || outcome === "failed")
    .map(({ email, customer_id, code }) => textOf(code ?? "", email ?? customer_id));
}

/** Returns the sentence for the code of a part that was refused. */
export function textOf(code: string, who: string | null): string {
  if (WAITS.includes(code)) return WAIT;
  const text = TEXTS[code];
  if (text === undefined) return who === null ? `Not changed: ${code}.` : `${who}: not changed (${code}).`;
  return who === null || /^[A-Z]/.test(text) ? text[0]!.toUpperCase() + text.slice(1) : `${who}: ${text}`;
}

function refusal(error: unknown): string[] {
  const { problem } = error as { problem?: Schemas["Problem"] };
  if (problem === undefined) return [WAIT];
  const each = texts(problem.results ?? []);
  if (each.length > 0) return each;
  const known = problem.code in TEXTS || WAITS.includes(problem.code) || isProblem(error, "stripe_unavailable");
  return [known ? textOf(problem.code, null) : problem.detail];
}
