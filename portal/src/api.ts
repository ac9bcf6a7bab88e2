/** Calls of the Coseat API, by its client. The rest of the portal knows the API by this module only. */
import { CoseatError, createClient, type Input, type OperationName, type Schemas } from "@coseat/client";

export type Seats = Schemas["Seats"];
export type Person = Schemas["Person"];
export type People = Schemas["PersonList"];
export type Payment = Schemas["Payment"];
export type Subscription = Schemas["Subscription"];
export type PendingChange = Schemas["PendingChange"];
export type Quote = Schemas["QuoteAnswer"];
export type ChangeResult = Schemas["ChangeResult"];
export type Operation = Schemas["OperationAnswer"];
export type Invitation = Schemas["Invitation"];
export type AuditEvent = Schemas["AuditEvent"];
export type PaymentMethod = Schemas["PaymentMethod"];
export type Invoice = Schemas["Invoice"];
export type Product = Schemas["Product"];
export type SoldPrice = Schemas["Price"];
export type Recurring = Schemas["Recurring"];
export type MemberRole = Schemas["RoleChange"]["role"];
export type MemberState = Person["state"];

/** A price of a product, or of an item of a subscription. */
export type Price = Pick<
  Schemas["ItemPrice"],
  "id" | "currency" | "recurring" | "tiers" | "transform_quantity" | "unit_amount" | "unit_amount_decimal"
>;

/** What an operation on one subscription takes besides its id. */
type FieldsOf<Name extends OperationName> = Omit<Input<Name>, "subscription_id">;

export type PeopleQuery = FieldsOf<"getSharedSubscriptionUsers">;
export type MemberChange = FieldsOf<"updateSharedSubscriptionUsers">;
export type SeatQuery = FieldsOf<"quoteSeats">;
export type SeatChange = FieldsOf<"setSeats">;
export type SubscriptionChange = FieldsOf<"updateSubscription">;
export type TransferOffer = FieldsOf<"offerTransfer">;
export type End = NonNullable<Schemas["CancelRequest"]["when"]>;

/** The token of the signed-in person, or a function that gives a valid one at each call. */
export type Token = string | (() => string | Promise<string>);

/** A refusal of the API, or `offline` if no answer came. `figures` are the members of its problem document. */
export class ApiError extends Error {
  readonly code: string;
  readonly status: number;
  readonly figures: Record<string, unknown>;

  constructor(code: string, status: number, figures: object = {}) {
    super(code);
    this.code = code;
    this.status = status;
    this.figures = { ...figures };
  }

  /** What became of each part of a change of people. */
  get results(): ChangeResult[] {
    return (this.figures["results"] as ChangeResult[] | undefined) ?? [];
  }
}

const PAGE = 20;
const RETRIES = 2;
const PAYMENT_KNOWN_AFTER = 20_000;

/** A browser that knows it is offline is not asked again: the person sees it at once. */
async function send(request: Request): Promise<Response> {
  if (!navigator.onLine) throw new ApiError("offline", 0);
  return fetch(request);
}

function refusalOf(error: unknown): unknown {
  if (error instanceof CoseatError) return new ApiError(error.code, error.status, error.problem);
  return error instanceof TypeError ? new ApiError("offline", 0) : error;
}

/** Resolves with an answer. Every refusal is an `ApiError`. */
async function told<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    throw refusalOf(error);
  }
}

export type Api = ReturnType<typeof createApi>;

export function createApi(baseUrl: string, token: Token) {
  const client = createClient({ baseUrl: baseUrl || location.origin, token, fetch: send, retries: RETRIES });
  return {
    ensureCustomer: () => told(client.createCustomer({})).then((answer) => answer.customer),
    updateCustomer: (profile: Input<"updateCustomer">) => told(client.updateCustomer(profile)),
    subscriptions: () => told(client.getCustomerSubscriptions({ limit: 100 })),
    addSubscription: (purchase: Input<"addSubscription">) => told(client.addSubscription(purchase)),
    updateSubscription: (subscription_id: string, change: SubscriptionChange) =>
      told(client.updateSubscription({ subscription_id, ...change })),
    previewSubscription: (subscription_id: string, change: SubscriptionChange) =>
      told(client.previewSubscription({ subscription_id, ...change })),
    cancelSubscription: (subscription_id: string, when: End) =>
      told(client.cancelSubscription({ subscription_id, when })),

    sharedSubscription: (subscription_id: string) =>
      told(client.getSharedSubscription({ subscription_id })).then((answer) => answer.subscription),
    people: (subscription_id: string, query: PeopleQuery) =>
      told(client.getSharedSubscriptionUsers({ subscription_id, ...query })),
    changePeople: (subscription_id: string, change: MemberChange) =>
      told(client.updateSharedSubscriptionUsers({ subscription_id, ...change })),
    leave: (subscription_id: string) => told(client.leaveSharedSubscription({ subscription_id })),
    quoteSeats: (subscription_id: string, change: SeatQuery) =>
      told(client.quoteSeats({ subscription_id, ...change })),
    setSeats: (subscription_id: string, change: SeatChange) => told(client.setSeats({ subscription_id, ...change })),
    history: (subscription_id: string, cursor?: string) =>
      told(client.getAuditEvents({ subscription_id, limit: PAGE, ...(cursor ? { cursor } : {}) })),
    transfer: (subscription_id: string) =>
      told(client.getTransfer({ subscription_id })).then((answer) => answer.transfer),
    offerTransfer: (subscription_id: string, offer: TransferOffer) =>
      told(client.offerTransfer({ subscription_id, ...offer })),
    acceptTransfer: (subscription_id: string) => told(client.acceptTransfer({ subscription_id })),
    declineTransfer: (subscription_id: string) => told(client.declineTransfer({ subscription_id })),
    allowPurchases: (subscription_id: string) => told(client.givePurchasePermission({ subscription_id })),
    withdrawPurchases: (subscription_id: string) => told(client.withdrawPurchasePermission({ subscription_id })),

    invitations: (subscription_id: string, cursor?: string) =>
      told(client.getInvitations({ subscription_id, limit: PAGE, ...(cursor ? { cursor } : {}) })),
    invite: (subscription_id: string, email: string, role: MemberRole) =>
      told(client.createInvitation({ subscription_id, email, role })),
    resendInvitation: (subscription_id: string, invitation_id: string) =>
      told(client.resendInvitation({ subscription_id, invitation_id })),
    revokeInvitation: (subscription_id: string, invitation_id: string) =>
      told(client.revokeInvitation({ subscription_id, invitation_id })),
    lookUpInvitation: (secret: string) => told(client.lookUpInvitation({ token: secret })),
    acceptInvitation: (secret: string) => told(client.acceptInvitation({ token: secret })),
    declineInvitation: (secret: string) => told(client.declineInvitation({ token: secret })),

    /** Waits until an operation is settled or waits for a payment. */
    finished: (operation_id: string): Promise<Operation> => told(client.waitForOperation(operation_id)),
    /**
     * Waits until the service knows of a payment that was made, at most 20 s. It never fails: the payment was made,
     * whatever becomes of this question, and the subscription's events tell the rest.
     */
    paid: async (operation_id: string): Promise<void> => {
      const options = { throughPayment: true, signal: AbortSignal.timeout(PAYMENT_KNOWN_AFTER) };
      await client.waitForOperation(operation_id, options).catch(() => {});
    },
    cancelOperation: (operation_id: string) => told(client.cancelOperation({ operation_id })),

    invoices: (cursor?: string) =>
      told(client.getCustomerInvoices({ limit: PAGE, ...(cursor ? { cursor } : {}) })),
    paymentMethods: () => told(client.getCustomerPaymentMethods({ limit: 100 })),
    createSetupIntent: () => told(client.createSetupIntent()).then((answer) => answer.setup_intent),
    detachPaymentMethod: (payment_method_id: string) =>
      told(client.detachPaymentMethodFromCustomer({ payment_method_id })),
    setDefaultPaymentMethod: (payment_method_id: string) =>
      told(client.setPaymentMethodAsDefault({ payment_method_id })),
    products: () => told(client.getProducts({ limit: 100 })),

    /**
     * Calls `changed` at each event of a subscription until `signal` aborts. The client connects again by itself. The
     * first call is for what happened before the stream began, after the last read.
     */
    async follow(subscription_id: string, signal: AbortSignal, changed: () => void): Promise<void> {
      let isBegun = false;
      const onPlace = () => {
        if (!isBegun) changed();
        isBegun = true;
      };
      try {
        for await (const _ of client.streamEvents({ subscription_id }, { signal, onPlace })) changed();
      } catch (error) {
        if (!signal.aborted) throw refusalOf(error);
      }
    },
  };
}
