"""Who may use the routes under `/dev`: pages of this process, and programs on this machine."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from starlette.types import Scope

from app.http.headers import header_text

_HOST: Final = re.compile(r"(localhost|127\.0\.0\.1)(:\d{1,5})?")
_OWN_SITES: Final = frozenset({"same-origin", "none"})
"""Values of `Sec-Fetch-Site` for a request of a page from here, and for an address that a person typed."""


def is_from_here(scope: Scope) -> bool:
    """Return True if a page of this process, or a program on this machine, sends the request.

    A browser sends requests for any page. A foreign page is recognised by its `Origin` and `Sec-Fetch-Site`, and by
    `Host` if its own name leads to this machine (DNS rebinding).
    """
    client = scope.get("client")
    host = header_text(scope, b"host") or ""
    origin = header_text(scope, b"origin")
    site = header_text(scope, b"sec-fetch-site")
    return (
        client is not None
        and _is_loopback(client[0])
        and _HOST.fullmatch(host) is not None
        and origin in (None, f"http://{host}")
        and (site is None or site in _OWN_SITES)
    )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
