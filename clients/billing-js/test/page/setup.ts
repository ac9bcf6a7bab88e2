// What an application adds: one import before the client's own, with its token and its key.
import { type Adapter, install } from "@coseat/billing-js";

const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? undefined;
history.replaceState(null, "", location.pathname);

export const adapter: Adapter = install({ token: async () => token, publishableKey: "pk_test_own" });
