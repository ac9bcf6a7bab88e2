"""Receive events of Coseat: verify the signature, drop what was seen, keep who may use what.

Run it with the endpoint's secret: `WEBHOOK_SECRET=whsec_… python -m examples.webhook_receiver 9000`. A real
application keeps `access` and `seen` in its database, in one transaction.
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

seen: set[str] = set()
access: dict[tuple[str, str], dict[str, Any]] = {}


def take(event: dict[str, Any]) -> None:
    """Take in one event, which may come again."""
    if event["id"] in seen:
        return
    seen.add(event["id"])
    if event["type"] == "access.changed":
        key = (event["customer_id"], event["data"]["product_id"])
        # Several subscriptions can give access, so the revision decides and not the order of arrival.
        if event["data"]["revision"] > access.get(key, {"revision": 0})["revision"]:
            access[key] = event["data"]
    print(event["type"], event["customer_id"] or event["subscription_id"] or "", flush=True)


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 for what was taken, and 401 for what Coseat did not sign."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            event = Webhook(os.environ["WEBHOOK_SECRET"]).verify(body, dict(self.headers))
        except WebhookVerificationError:
            self.send_response(401)
        else:
            take(event)
            self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Print nothing of the request."""


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
