// Receives events of Coseat: verifies the signature, drops what was seen, keeps who may use what.
//
//   WEBHOOK_SECRET=whsec_… node examples/webhook_receiver.mts 9000
//
// A real application keeps `seen` and `access` in its database, in one transaction.
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { type Schemas, verifyWebhook, type WebhookEvent, WebhookSignatureError } from "@coseat/client";

const secret = process.env["WEBHOOK_SECRET"] ?? "";
const seen = new Set<string>();
const access = new Map<string, Schemas["AccessChangedData"]>();

/** Takes in one event, which may come again. */
function take(event: WebhookEvent): void {
  if (seen.has(event.id)) return;
  seen.add(event.id);
  if (event.type === "access.changed") {
    const key = `${event.customer_id} ${event.data.product_id}`;
    // Several subscriptions can give access, so the revision decides and not the order of arrival.
    if (event.data.revision > (access.get(key)?.revision ?? 0)) access.set(key, event.data);
  }
  console.log(event.type, event.customer_id ?? event.subscription_id ?? "");
}

const server = createServer(async (request, response) => {
  try {
    take(await verifyWebhook(secret, await text(request), request.headers));
    response.writeHead(204).end();
  } catch (error) {
    // What Coseat did not sign is refused. Anything else is sent again later.
    response.writeHead(error instanceof WebhookSignatureError ? 401 : 500).end();
  }
});
server.listen(Number(process.argv[2]), "127.0.0.1");
