// The calls of the published client: what is stated of each, and the test of pages.browser.ts that drives it.

/** The titles of the tests that drive the client's pages. */
export const TESTS = {
  people: "the portal shows the plan, and a person is added and bought a seat for",
  roles: "a manager is made and a person removed in the portal, and each role sees its own of it",
  purchase: "a plan is bought on the pricing page with a new card",
  bank: "a purchase with a promotion code is confirmed at the bank on the pricing page",
  cards: "cards are added, made the default and removed in the portal",
  ends: "a plan is discounted, ended and kept in the portal, and a refund is refused",
  profile: "the name is saved in the portal, and the e-mail is not",
  change: "a plan in use is not switched on the pricing page, and a free one is",
  nobody: "nobody is told on the pages whether an address has a customer",
};

export interface Outcome {
  call: string;
  by: keyof typeof TESTS;
  status: number;
  /** The text of a refusal, or a part of it. */
  says?: string;
  /** What is stated of the call. */
  states: string;
}

/** Every outcome that the pages may meet. A call that works answers 200. */
export const STATED: Outcome[] = [
  { call: "getProducts", by: "purchase", status: 200, states: "what is on sale, also to nobody" },
  { call: "getLocalCurrency", by: "purchase", status: 200, states: "the customer's currency, or a default" },
  { call: "getCustomerProfile", by: "people", status: 200, states: "the caller's customer" },
  { call: "getCustomerSubscriptions", by: "people", status: 200, states: "owned, paid and shared ones" },
  { call: "getCustomerPaymentMethods", by: "people", status: 200, states: "cards" },
  { call: "getCustomerInvoices", by: "people", status: 200, states: "ten a page" },
  { call: "getSharedSubscription", by: "roles", status: 200, states: "the subscription, or null to those who are not on it" },
  { call: "getSharedSubscriptionUsers", by: "people", status: 200, states: "never fails" },
  { call: "getSharedSubscriptionQuote", by: "people", status: 200, states: "what is charged now" },
  { call: "updateSharedSubscriptionUsers", by: "people", status: 200, states: "buys at the quote that was shown" },
  { call: "updateSharedSubscriptionUsers", by: "roles", status: 200, states: "changes roles and removes" },
  { call: "addSubscription", by: "purchase", status: 200, states: "the purchase" },
  { call: "addSubscription", by: "bank", status: 200, states: "incomplete, with an invoice to pay" },
  { call: "getSubscriptionInvoice", by: "bank", status: 200, states: "the payment's own secret, to its payer" },
  { call: "validatePromotionCode", by: "bank", status: 200, states: "the code and its percentage" },
  { call: "validatePromotionCode", by: "bank", status: 404, says: "There is no such promotion code.", states: "an unknown code" },
  { call: "applyPromotionCodeToSubscription", by: "ends", status: 200, states: "the discount" },
  { call: "validatePromotionCode", by: "ends", status: 200, states: "asked before it is applied" },
  { call: "validatePromotionCode", by: "ends", status: 404, says: "There is no such promotion code.", states: "an unknown code" },
  { call: "updateSubscription", by: "change", status: 409, says: "seats", states: "a plan whose seats are in use" },
  { call: "updateSubscription", by: "change", status: 200, states: "the price as sent" },
  { call: "cancelSubscription", by: "ends", status: 200, states: "at the period's end, or now" },
  { call: "cancelSubscription", by: "roles", status: 403, says: "role", states: "to managers" },
  { call: "dontCancelSubscription", by: "ends", status: 200, states: "while it has not ended" },
  { call: "dontCancelSubscription", by: "ends", status: 409, says: "ended", states: "once it has ended" },
  { call: "refundSubscription", by: "ends", status: 501, says: "Refunds are not made here.", states: "always" },
  { call: "getClientSecret", by: "purchase", status: 200, states: "the secret of a set-up" },
  { call: "attachPaymentMethodToCustomer", by: "cards", status: 200, states: "the card" },
  { call: "setPaymentMethodAsDefault", by: "cards", status: 200, states: "the default of the customer" },
  { call: "detachPaymentMethodFromCustomer", by: "cards", status: 200, states: "one that nothing is charged to" },
  { call: "setCustomerTaxId", by: "profile", status: 200, states: "without a tax id" },
  { call: "setCustomerBillingDetails", by: "profile", status: 200, states: "the name" },
  { call: "updateCustomerEmail", by: "profile", status: 403, says: "Sign in with the new e-mail first.", states: "always" },
  { call: "checkCustomerEmail", by: "nobody", status: 403, says: "Sign in first.", states: "always, alike for every address" },
];
