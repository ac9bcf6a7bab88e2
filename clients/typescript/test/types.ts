// What must compile, and what must not. It is not run.
import { type Answer, createClient, type Event, type Input, isProblem, type ProblemOf } from "@coseat/client";

const coseat = createClient({ token: async () => "token" });

export async function inputs(subscription_id: string): Promise<void> {
  await coseat.getCustomer();
  await coseat.getCustomer({ customer_id: "cus_1" }, { actingCustomer: "cus_1" });
  await coseat.createCustomer();
  await coseat.createSetupIntent();
  await coseat.cancelSubscription({ subscription_id });
  await coseat.resendInvitation({ subscription_id, invitation_id: "inv_1" });
  await coseat.getCustomerSubscriptions({ status: ["active", "trialing"] });
  // @ts-expect-error -- an id of the path is missing
  await coseat.updateSubscription({});
  // @ts-expect-error -- a value that the field does not have
  await coseat.cancelSubscription({ subscription_id, when: "tomorrow" });
  // @ts-expect-error -- a status that does not exist
  await coseat.getCustomerSubscriptions({ status: ["actve"] });
  // @ts-expect-error -- a field that the body does not have
  await coseat.setSeats({ subscription_id, total: 3, totals: 4 });
  // @ts-expect-error -- an operation that does not exist
  await coseat.getCustomers();
}

export async function answers(input: Input<"setSeats">): Promise<Answer<"detachPaymentMethodFromCustomer">> {
  const changed: Answer<"setSeats"> = await coseat.setSeats(input);
  changed.pending satisfies boolean;
  const change = await coseat.addSubscription({ items: [{ price_id: "price_1" }] });
  // @ts-expect-error -- a 202 has no subscription
  change.subscription;
  if (!change.pending) change.subscription.id satisfies string;
  for await (const person of coseat.getSharedSubscriptionUsers({ subscription_id: "sub_1" })) {
    person.email satisfies string | null;
  }
  const page = await coseat.getSharedSubscriptionUsers({ subscription_id: "sub_1" });
  page.seats.available satisfies number;
  return coseat.detachPaymentMethodFromCustomer({ payment_method_id: "pm_1" });
}

export function errors(error: unknown): void {
  if (isProblem(error, "seats_in_use")) error.problem.requested satisfies number | undefined;
  if (isProblem(error, "end_ambiguous")) error.problem.earliest satisfies string;
  if (isProblem(error, "seat_limit_reached")) error.problem.required satisfies number | undefined;
  // @ts-expect-error -- a code that does not exist
  isProblem(error, "seat_limit_reachd");
}

export function problemsOfOneOperation(problem: ProblemOf<"setSeats">): number {
  switch (problem.code) {
    case "seats_in_use":
      return problem.used ?? 0;
    // @ts-expect-error -- a code that does not exist
    case "seats_in_used":
      return 0;
    default:
      return problem.status;
  }
}

export function happened(event: Event): string | undefined {
  switch (event.type) {
    case "seat.assigned":
      return event.data.role;
    case "access.changed":
      return event.data.product_id;
    // @ts-expect-error -- an event that does not exist
    case "seat.taken":
      return undefined;
    default:
      return undefined;
  }
}
