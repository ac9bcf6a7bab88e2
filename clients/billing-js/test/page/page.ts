// An application on the Billing.js client: its portal at /portal, its pricing page at /pricing, a plan at /shared.
import { adapter, flags } from "./setup.ts";
import { BillingProvider, CustomerPortal, getSharedSubscription, PaymentModal, useAuth, useProducts } from "@billing-js/react-billing-js";
import { createElement, useEffect } from "react";
import { createRoot } from "react-dom/client";

const told: string[] = ((globalThis as any).told = []);

function Portal() {
  return createElement(CustomerPortal as any, { options: { enableSubscriptionTransfer: true } });
}

function Pricing() {
  const { products, isLoading } = useProducts([flags.get("product") ?? "prod_demoteam"], {
    modal: { showPromotionCodeInput: true },
    onPaymentSuccessful: () => told.push("paid"),
    onPaymentError: () => told.push("not paid"),
  });
  if (isLoading) return createElement("p", null, "Loading");
  const offers = products.map((product: any) =>
    createElement(
      "div",
      { key: product.id },
      createElement("h2", null, product.name),
      createElement("p", { id: "price" }, product.selectedPricing.priceFormatted),
      createElement("button", { onClick: product.selectedPricing.onSelectPricing }, "Get started"),
    ),
  );
  return createElement("div", null, createElement(PaymentModal), offers);
}

function Shared() {
  const { user, signIn } = useAuth();
  useEffect(() => void (user ?? signIn()), [user]);
  const { sharedSubscription, isLoading } = getSharedSubscription({ subscriptionId: flags.get("subscription") ?? "" });
  return createElement("p", null, isLoading ? "Loading" : `Shared: ${sharedSubscription?.id ?? "none"}`);
}

const pages: Record<string, () => any> = { "/portal": Portal, "/pricing": Pricing, "/shared": Shared };

createRoot(document.getElementById("root")!).render(
  createElement(
    BillingProvider,
    {
      stripeAccount: "acct_1",
      liveMode: false,
      getEmailHmac: adapter.getEmailHmac,
      onError: (error: any) => told.push(String(error?.type ?? error)),
    } as any,
    createElement(pages[location.pathname]!),
  ),
);
