/** What a payment that was confirmed looks like: Stripe's own status of the intent, or a decline. */
export interface Confirmed {
  status: string;
  declineCode?: string | null;
}

export interface TestCard {
  id: string;
  name: string;
}

/**
 * Confirms a payment or a set-up by its client secret. There are two: Stripe Elements, and the stand-in's confirmation
 * in development.
 */
export interface PaymentConfirmation {
  kind: "elements" | "stand_in";
  /** Cards to choose from, if the card is not typed. */
  cards: readonly TestCard[];
  /** Puts a form for the card into `place` and returns its removal. Null: a card of `cards` is chosen. */
  mount: ((place: HTMLElement, clientSecret: string) => Promise<() => void>) | null;
  confirm: (confirmation: {
    clientSecret: string;
    kind: "payment" | "setup";
    card?: string;
    /** The cardholder's answer to the bank, if it asked. */
    authenticate?: boolean;
  }) => Promise<Confirmed>;
}
