import type { Token } from "../api";
import type { PaymentConfirmation } from "../payments/confirmation";

/** What the page that hosts the portal gives as `window.coseat`, before the portal's script runs. */
export interface Host {
  token: Token;
  baseUrl?: string;
  publishableKey?: string;
}

export interface DemoPerson {
  name: string | null;
  email: string;
  about: string | null;
}

/** Who is signed in: the host's person, or one of the demonstration under `coseat dev`. */
export type Session =
  | { kind: "host"; baseUrl: string; token: Token; payments: PaymentConfirmation | null }
  | { kind: "development"; people: DemoPerson[]; payments: PaymentConfirmation };

declare global {
  interface Window {
    coseat?: Host;
  }
}

/** Returns null if neither a host nor `coseat dev` tells who is signed in. */
export async function openSession(): Promise<Session | null> {
  const host = window.coseat;
  if (host !== undefined) {
    const payments =
      host.publishableKey === undefined
        ? null
        : (await import("../payments/elements")).elementsConfirmation(host.publishableKey);
    return { kind: "host", baseUrl: host.baseUrl ?? "", token: host.token, payments };
  }
  const response = await fetch("/dev/people").catch(() => null);
  if (response === null || !response.ok) return null;
  const people = ((await response.json()) as { data: DemoPerson[] }).data;
  const { standInConfirmation } = await import("../payments/standIn");
  return { kind: "development", people, payments: standInConfirmation("") };
}

const EARLIER = 60_000;

/** Returns a function that gives a token for a person of the demonstration, or for somebody new. Nothing is stored. */
export function developmentToken(email: string): () => Promise<string> {
  let kept: Promise<{ token: string; expires_at: number }> | null = null;
  let goodUntil = 0;
  return async () => {
    if (kept === null || Date.now() > goodUntil) {
      kept = sign(email);
      kept.catch(() => {
        kept = null;
      });
      goodUntil = (await kept).expires_at * 1000 - EARLIER;
    }
    return (await kept).token;
  };
}

async function sign(email: string): Promise<{ token: string; expires_at: number }> {
  const response = await fetch("/dev/token", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ email }),
  });
  if (!response.ok) throw new Error(`No token: ${response.status}.`);
  return (await response.json()) as { token: string; expires_at: number };
}
