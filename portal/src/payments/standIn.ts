import type { Confirmed, PaymentConfirmation } from "./confirmation";

/** The cards of the Stripe stand-in. Their names are proper names of test cards, the same in every language. */
const CARDS = [
  { id: "pm_card_visa", name: "Visa •••• 4242" },
  { id: "pm_card_threeDSecure2Required", name: "3-D Secure •••• 3220" },
  { id: "pm_card_chargeDeclined", name: "Declined •••• 0002" },
  { id: "pm_card_chargeDeclinedInsufficientFunds", name: "Insufficient funds •••• 9995" },
] as const;

/** Returns the confirmation that `coseat dev` offers in place of Stripe.js. Nothing is loaded from Stripe. */
export function standInConfirmation(baseUrl: string): PaymentConfirmation {
  return {
    kind: "stand_in",
    cards: CARDS,
    mount: null,
    async confirm({ clientSecret, card, authenticate }): Promise<Confirmed> {
      const response = await fetch(`${baseUrl}/dev/payment`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({
          client_secret: clientSecret,
          ...(card === undefined ? {} : { payment_method: card }),
          ...(authenticate === undefined ? {} : { authenticate }),
        }),
      });
      const answer = (await response.json()) as { status?: string; decline_code?: string };
      if (response.status === 402) {
        return { status: "requires_payment_method", declineCode: answer.decline_code ?? null };
      }
      if (!response.ok) throw new Error(`The stand-in answered ${response.status}.`);
      return { status: answer.status ?? "processing" };
    },
  };
}
