import { useSyncExternalStore } from "react";

const SCREENS = ["subscriptions", "plans", "invoices", "payment-methods", "profile", "shared", "invitations"] as const;

export type Screen = (typeof SCREENS)[number];

function isScreen(name: string): name is Screen {
  return SCREENS.some((screen) => screen === name);
}

export interface Route {
  screen: Screen;
  /** The subscription of `shared`, the token of `invitations`. */
  id: string | null;
  /** True if the address names nothing, as at the first visit. */
  isStart: boolean;
}

const START: Route = { screen: "subscriptions", id: null, isStart: true };

/** Screens are below `#`, so that any server can serve the page, and the token of an invitation reaches no log. */
export function routeOf(hash: string): Route {
  const [screen = "", id = ""] = hash.replace(/^#\/?/, "").split("/");
  if (screen === "") return START;
  if (!isScreen(screen)) return { screen: "subscriptions", id: null, isStart: false };
  try {
    return { screen, id: id === "" ? null : decodeURIComponent(id), isStart: false };
  } catch {
    return START;
  }
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
