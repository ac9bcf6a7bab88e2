"""The events that the application has received: verified, each once, and kept over a restart.

Mails are among them: an application that receives `invitation.created` sends the person a link.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from app.domain.snapshots import JsonObject
from app.errors import Unauthenticated
from app.operating.dev import ENDPOINT_FILE, RECEIVED_FILE
from app.operating.dev.private_files import write_private

_KEPT: Final = 1000
_TEST: Final = "endpoint.test"


class ReceivedEvents:
    """Verifies and keeps events. The directory has the endpoint's secret, and a file with the newest events."""

    def __init__(self, directory: Path) -> None:
        self._endpoint = directory / ENDPOINT_FILE
        self._file = directory / RECEIVED_FILE
        self._events: dict[str, JsonObject] = {one["id"]: one for one in _kept(self._file)[-_KEPT:]}
        write_private(self._file, "".join(f"{json.dumps(event)}\n" for event in self._events.values()))

    def take(self, body: bytes, headers: dict[str, str]) -> None:
        """Keep an event that Coseat has signed for this endpoint. It may come again, and is kept once.

        Raises:
            Unauthenticated: The signature does not fit.
        """
        try:
            event = Webhook(self._secret()).verify(body, headers)
        except (OSError, ValueError, WebhookVerificationError):
            raise Unauthenticated("The event is not signed with the secret of this endpoint.") from None
        if event["type"] == _TEST or event["id"] in self._events:
            return
        received = {**event, "received_at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        with self._file.open("a") as lines:
            lines.write(f"{json.dumps(received)}\n")
        self._events[event["id"]] = received
        if len(self._events) > _KEPT:
            self._events.pop(next(iter(self._events)))

    def newest(self, limit: int) -> list[JsonObject]:
        """Return events as they were received, the newest first, each with `received_at`."""
        return list(islice(reversed(self._events.values()), limit))

    def mails(self) -> list[JsonObject]:
        """Return what was sent by mail, the newest first. `link` opens the invitation in the portal.

        The token is in the link's fragment, which no server sees.
        """
        return [
            {
                "event_id": event["id"],
                "received_at": event["received_at"],
                "to": event["data"]["email"],
                "invitation_id": event["data"]["invitation_id"],
                "subscription_id": event["subscription_id"],
                "role": event["data"]["role"],
                "token": event["data"]["token"],
                "link": f"/#/invitations/{event['data']['token']}",
            }
            for event in self.newest(_KEPT)
            if event["type"] == "invitation.created" and event["data"]["token"] is not None
        ]

    def _secret(self) -> str:
        secret: str = json.loads(self._endpoint.read_text())["secret"]
        return secret


def _kept(file: Path) -> list[JsonObject]:
    """Return the events of the file. The last line is left out if the process ended while it was written."""
    found = []
    for line in file.read_text().splitlines() if file.exists() else ():
        with suppress(ValueError):
            found.append(json.loads(line))
    return found
