// Signatures of posted events: the client accepts what the library of Standard Webhooks signs, and nothing else.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { type VerifyOptions, verifyWebhook, type WebhookHeaders, WebhookSignatureError } from "@coseat/client";
import { Webhook } from "standardwebhooks";

const newSecret = () => `whsec_${randomBytes(32).toString("base64")}`;
const secret = newSecret();
const body = JSON.stringify({ id: "evt_1", type: "endpoint.test", data: { source: "api", operation_id: null }, note: "ü€" });

function signed(by = [secret], at = new Date()): Record<string, string> {
  const signature = by.map((one) => new Webhook(one).sign("evt_1", at, body)).join(" ");
  return { "webhook-id": "evt_1", "webhook-timestamp": String(Math.floor(at.getTime() / 1000)), "webhook-signature": signature };
}

const isRefused = (headers: WebhookHeaders, text = body, options?: VerifyOptions) =>
  assert.rejects(verifyWebhook(secret, text, headers, options), WebhookSignatureError);
const secondsAgo = (seconds: number) => new Date(Date.now() - seconds * 1000);

test("what the library signs is accepted, from headers of fetch and of Node", async () => {
  assert.equal((await verifyWebhook(secret, body, signed())).type, "endpoint.test");
  assert.equal((await verifyWebhook(secret, body, new Headers(signed()))).id, "evt_1");
  assert.equal((await verifyWebhook(secret.slice("whsec_".length), body, signed())).id, "evt_1");
});

test("while a secret is rotated, both are accepted", async () => {
  const rotated = newSecret();
  for (const one of [secret, rotated]) assert.equal((await verifyWebhook(one, body, signed([rotated, secret]))).id, "evt_1");
});

test("a request that was changed, or signed by another secret, is refused", async () => {
  await isRefused(signed([newSecret()]));
  await isRefused(signed(), `${body} `);
  await isRefused({ ...signed(), "webhook-id": "evt_2" });
  await isRefused({ ...signed(), "webhook-timestamp": String(Math.floor(Date.now() / 1000) - 1) });
  await isRefused({ ...signed(), "webhook-signature": signed()["webhook-signature"]!.replace("v1,", "v2,") });
  await isRefused({ ...signed(), "webhook-signature": "v1,no-base64 v1, v1" });
  await isRefused({});
});

test("an old signature is refused, so that a request cannot be sent again later", async () => {
  await isRefused(signed([secret], secondsAgo(301)));
  await isRefused(signed([secret], secondsAgo(-302)));
  await isRefused({ ...signed(), "webhook-timestamp": "now" });
  await isRefused(signed([secret], secondsAgo(20)), body, { tolerance: 10 });
  assert.equal((await verifyWebhook(secret, body, signed([secret], secondsAgo(290)))).id, "evt_1");
});

test("a secret that cannot be one is the application's error", async () => {
  for (const one of ["", "whsec_", "whsec_not base64!"]) await assert.rejects(verifyWebhook(one, body, signed()), TypeError);
});
