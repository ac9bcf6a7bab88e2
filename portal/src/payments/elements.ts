import type { Confirmed, PaymentConfirmation } from "./confirmation";

const STRIPE_JS = "https://js.stripe.com/v3/";

/** The few members of Stripe.js that are used. */
interface Stripe {
  elements: (options: { clientSecret: string }) => Elements;
  confirmPayment: (options: object) => Promise<Result>;
  confirmSetup: (options: object) => Promise<Result>;
}
interface Elements {
  create: (kind: "payment") => { mount: (place: HTMLElement) => void; destroy: () => void };
}
interface Result {
  error?: { decline_code?: string; code?: string };
  paymentIntent?: { status: string };
  setupIntent?: { status: string };
}

let loading: Promise<Stripe> | null = null;

/** Loads Stripe.js from Stripe, as Stripe demands, at the first payment and only once. */
function loadStripe(publishableKey: string): Promise<Stripe> {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = STRIPE_JS;
    script.onload = () => {
      const make = (window as unknown as { Stripe: (key: string) => Stripe }).Stripe;
      resolve(make(publishableKey));
    };
    script.onerror = () => {
      loading = null;
      reject(new Error("Stripe.js could not be loaded."));
    };
    document.head.append(script);
  });
  return loading;
}

/**
 * Returns the confirmation by Stripe's Payment Element, for an installation with a publishable key. It was written by
 * Stripe's documentation and has not run against Stripe: the tests use the stand-in.
 */
export function elementsConfirmation(publishableKey: string): PaymentConfirmation {
  if (!publishableKey.startsWith("pk_")) throw new Error("A publishable key begins with pk_.");
  let elements: Elements | null = null;
  return {
    kind: "elements",
    cards: [],
    async mount(place, clientSecret) {
      const stripe = await loadStripe(publishableKey);
      elements = stripe.elements({ clientSecret });
      const form = elements.create("payment");
      form.mount(place);
      return () => {
        elements = null;
        form.destroy();
      };
    },
    async confirm({ kind }): Promise<Confirmed> {
      const stripe = await loadStripe(publishableKey);
      const options = { elements, redirect: "if_required", confirmParams: { return_url: location.href } };
      const result = await (kind === "setup" ? stripe.confirmSetup(options) : stripe.confirmPayment(options));
      if (result.error) {
        const declineCode = result.error.decline_code ?? result.error.code ?? null;
        return { status: "requires_payment_method", declineCode };
      }
      return { status: (result.paymentIntent ?? result.setupIntent)?.status ?? "processing" };
    },
  };
}
