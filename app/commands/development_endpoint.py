"""Register the application of `coseat dev` as a webhook endpoint, as any application does: through the API."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.operating.dev import ENDPOINT_FILE
from app.operating.dev.private_files import write_private

_SECONDS = 10
_NOT_FOUND = 404


class NotRegistered(Exception):
    """Raised if the API does not take the endpoint. The message is for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint whose secret is kept."""

    id: str
    secret: str


def register(api: str, service_key: str, directory: Path) -> None:
    """Make sure that events arrive at `/dev/webhook` of this process, and keep the endpoint's secret in `directory`.

    The endpoint of the last start is used again, wherever the API listens now, unless a test event does not arrive.

    Raises:
        NotRegistered: The API refuses, or does not answer.
    """
    endpoints, url = f"{api}/v1/webhook-endpoints", f"{api}/dev/webhook"
    file = directory / ENDPOINT_FILE
    try:
        kept = _kept(file)
        if kept is not None and _is_reached(f"{endpoints}/{kept.id}", service_key, url):
            return
        if kept is not None:
            _ask("DELETE", f"{endpoints}/{kept.id}", service_key)
        made = _ask("POST", endpoints, service_key, {"url": url, "description": "coseat dev"})
        if made is None:
            raise NotRegistered("The API has no webhook endpoints.")
    except OSError as error:
        raise NotRegistered(f"The API does not answer: {error}.") from error
    write_private(file, json.dumps(asdict(Endpoint(made["webhook_endpoint"]["id"], made["secret"]))))


def _kept(file: Path) -> Endpoint | None:
    """Return the endpoint of the last start, None without one that can be read."""
    try:
        return Endpoint(**json.loads(file.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _is_reached(endpoint: str, service_key: str, url: str) -> bool:
    """Point the endpoint to this process, and return True if a test event arrives and its signature fits."""
    if _ask("PATCH", endpoint, service_key, {"url": url, "status": "enabled"}) is None:
        return False
    tested = _ask("POST", f"{endpoint}/test", service_key)
    return tested is not None and tested["delivered"] is True


def _ask(method: str, url: str, service_key: str, given: dict[str, str] | None = None) -> Any:
    """Return the API's answer, None if it knows no such object. Raises NotRegistered and OSError."""
    headers = {"Authorization": f"Bearer {service_key}", "Content-Type": "application/json"}
    body = None if given is None else json.dumps(given).encode()
    request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310 - the URL is our own
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as response:  # noqa: S310 - see above
            return json.loads(response.read() or "{}")
    except urllib.error.HTTPError as error:
        if error.code == _NOT_FOUND:
            return None
        raise NotRegistered(
            f"The API answers {error.code}: {error.read().decode(errors='replace')[:500]}"
        ) from error
