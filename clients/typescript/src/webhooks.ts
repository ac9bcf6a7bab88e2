// Events that the service posts to a webhook endpoint, signed by Standard Webhooks (https://www.standardwebhooks.com).
// The library of Standard Webhooks would be a second dependency; the tests hold this code to what it signs.
import type { WebhookEvent } from "./types.ts";

/** A request that the service did not sign, or signed too long ago. Answer it with 401. */
export class WebhookSignatureError extends Error {
  override readonly name = "WebhookSignatureError";
}

export interface VerifyOptions {
  /** The seconds by which the time of the signature may differ from the clock here, 300 by default. */
  tolerance?: number;
}

/** The headers of a request, of `fetch` or of Node. */
export type WebhookHeaders = Headers | Record<string, string | string[] | undefined>;

const PREFIX = "whsec_";
const TOLERANCE = 300;
const encoder = new TextEncoder();

/** Returns the bytes of a base64 text, or nothing if it is none. */
function decoded(text: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  } catch {
    return undefined;
  }
}

function header(headers: WebhookHeaders, name: string): string {
  const value = headers instanceof Headers ? headers.get(name) : headers[name];
  return typeof value === "string" ? value : "";
}

/**
 * Resolves with the event of a request, or rejects with `WebhookSignatureError`.
 *
 * `body` is the text as it was received: JSON that was parsed and written again has another signature. While a secret is
 * rotated, events are signed with both, so that either may be given.
 */
export async function verifyWebhook(
  secret: string,
  body: string,
  headers: WebhookHeaders,
  { tolerance = TOLERANCE }: VerifyOptions = {},
): Promise<WebhookEvent> {
  const id = header(headers, "webhook-id");
  const time = header(headers, "webhook-timestamp");
  const age = Math.abs(Date.now() / 1000 - Number.parseInt(time, 10));
  if (!(age <= tolerance)) throw new WebhookSignatureError(`The signature is not of the last ${tolerance} seconds.`);
  const bytes = decoded(secret.startsWith(PREFIX) ? secret.slice(PREFIX.length) : secret);
  if (bytes === undefined || bytes.length === 0) throw new TypeError("The secret is not the one of an endpoint.");
  const key = await crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
  for (const one of header(headers, "webhook-signature").split(" ")) {
    const [version, text = ""] = one.split(",");
    const signature = version === "v1" ? decoded(text) : undefined;
    if (signature === undefined) continue;
    if (await crypto.subtle.verify("HMAC", key, signature, encoder.encode(`${id}.${time}.${body}`))) {
      return JSON.parse(body) as WebhookEvent;
    }
  }
  throw new WebhookSignatureError("No signature fits the request.");
}
