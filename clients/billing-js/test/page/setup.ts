// What an application adds: one import before the client's own, with its token and its key.
import { type Adapter, install } from "@coseat/billing-js";

export const flags = new URLSearchParams(location.hash.slice(1));
const token = flags.get("token") ?? undefined;
history.replaceState(null, "", location.pathname);

export const adapter: Adapter = install({ token: async () => token, publishableKey: "pk_test_own" });

// For the tests alone: what the client calls, and a product with refunds, which no answer of the adapter has.
const calls: object[] = ((globalThis as any).calls = []);
const real = globalThis.fetch;
globalThis.fetch = async (input, init) => {
  const response = await real(input, init);
  const [, name] = /^https:\/\/[\w.-]*billing-?js\.(?:com|cloudfunctions\.net)\/api\/v1\/(.+)$/.exec(String(input)) ?? [];
  if (name === undefined) return response;
  const said: any = await response.clone().json();
  calls.push({ name, status: response.status, error: said.error ?? said.data?.errors?.join("; ") });
  if (name !== "getCustomerSubscriptions" || !flags.has("refunds")) return response;
  for (const { plan } of said.subscriptions) plan.product.metadata.billing_full_refund_max_days = "30";
  return new Response(JSON.stringify(said), response);
};
