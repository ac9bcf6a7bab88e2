// An application on the Billing.js client: its portal at /portal, its pricing page at /pricing.
import { adapter } from "./setup.ts";
import { BillingProvider, CustomerPortal, PaymentModal, useProducts } from "@billing-js/react-billing-js";
import { createElement } from "react";
import { createRoot } from "react-dom/client";

const told: string[] = ((globalThis as any).told = []);

function Pricing() {
  const { products, isLoading } = useProducts(["prod_demoteam"], {
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

createRoot(document.getElementById("root")!).render(
  createElement(
    BillingProvider,
    {
      stripeAccount: "acct_1",
      liveMode: false,
      getEmailHmac: adapter.getEmailHmac,
      onError: (error: any) => told.push(String(error?.type ?? error)),
    } as any,
    createElement(location.pathname === "/portal" ? CustomerPortal : Pricing),
  ),
);
