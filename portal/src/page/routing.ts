import { useSyncExternalStore } from "react";

export type Screen =
  | "subscriptions"
  | "plans"
  | "invoices"
  | "payment-methods"
  | "profile"
  | "shared"
  | "invitations";

export interface Route {
  screen: Screen;
  /** The subscription of `shared`, the token of `invitations`. */
  id: string | null;
  /** True if the address names no screen, as at the first visit. */
  isStart: boolean;
}

const SCREENS: readonly string[] = [
  "subscriptions", "plans", "invoices", "payment-methods", "profile", "shared", "invitations",
] satisfies Screen[];

/** Screens are below `#`, so that any server can serve the page, and the token of an invitation reaches no log. */
export function routeOf(hash: string): Route {
  const [screen = "", id = ""] = hash.replace(/^#\/?/, "").split("/");
  if (!SCREENS.includes(screen)) return { screen: "subscriptions", id: null, isStart: screen === "" };
  return { screen: screen as Screen, id: id === "" ? null : decodeURIComponent(id), isStart: false };
}

export function pathOf(screen: Screen, id?: string): string {
  return `#/${screen}${id === undefined ? "" : `/${encodeURIComponent(id)}`}`;
}

function subscribe(changed: () => void) {
  window.addEventListener("hashchange", changed);
  return () => window.removeEventListener("hashchange", changed);
}

export function useRoute(): Route {
  return routeOf(useSyncExternalStore(subscribe, () => location.hash));
}

export function go(path: string) {
  location.hash = path.slice(1);
}
