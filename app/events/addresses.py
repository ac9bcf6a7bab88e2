"""Decide to which addresses events may be sent. Beside a live key only to public ones, over https.

A name can resolve to another address at each look-up. So the address is judged when the connection is made, and the
connection is made to that address.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

import httpcore
from httpcore import AsyncNetworkBackend, AsyncNetworkStream

from app.errors import FieldError, InvalidRequest
from app.events.resolving import Resolver

_LONGEST: Final = 2000
# These hold an IPv4 address, which a gateway on the way may go on to.
_CARRIERS: Final = (
    IPv6Network("64:ff9b::/96"),
    IPv6Network("64:ff9b:1::/48"),
    IPv6Network("2002::/16"),
    IPv6Network("2001::/32"),
    IPv6Network("::/96"),
)


class NotPublic(httpcore.ConnectError):
    """The name leads to an address that is not public."""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return True for an address that anybody on the internet can reach."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.is_site_local or any(address in network for network in _CARRIERS):
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def check_url(url: str, *, live: bool) -> str:
    """Return the URL of an endpoint.

    `live`: beside a live Stripe key, it must be https, and a literal address must be public. A name is judged when the
    connection is made.

    Raises:
        InvalidRequest: the URL is malformed, or breaks one of these rules.
    """
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise _refused("is not a URL. Send https://host/path.") from None
    if len(url) > _LONGEST or not url.isascii() or any(c <= " " or c == "\x7f" for c in url) or "\\" in url:
        raise _refused("is not a URL of up to 2000 printable ASCII characters. Send https://host/path.")
    if parts.scheme not in ("https", "http") or not host or port == 0:
        raise _refused("must be an https URL with a host. Send https://host/path.")
    if "@" in parts.netloc:
        raise _refused("must not carry a user name or a password. Verify the signature instead.")
    if parts.fragment:
        raise _refused("must not have a fragment. Leave it out.")
    if live and parts.scheme != "https":
        raise _refused("must use https beside a live Stripe key. Send https://host/path.")
    if live and (literal := _literal(host)) is not None and not is_public(literal):
        raise _refused("must not name an address that is not public. Send the name of a public host.")
    return url


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a host is, in any form that a resolver takes for one."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host.rstrip(".")))
    except OSError:
        return None


def _refused(rule: str) -> InvalidRequest:
    return InvalidRequest(f"url: it {rule}", errors=[FieldError("/url", "invalid", f"It {rule}")])


class GuardedNetwork(AsyncNetworkBackend):
    """Connects to the address that it has judged. `live`: only to public ones."""

    def __init__(self, *, live: bool, backend: AsyncNetworkBackend | None = None) -> None:
        self._live = live
        self._backend = backend or httpcore.AnyIOBackend()
        self._resolver = Resolver()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        """Resolve the host, refuse it if one of its addresses is not public, and connect to the first that answers.

        Raises:
            NotPublic: an address of the host is not public.
            httpcore.ConnectError: the host is unknown, or none of its addresses answers.
        """
        try:
            addresses = await self._resolver.addresses(host)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError("the host is unknown") from error
        if self._live and not all(is_public(ip_address(one.partition("%")[0])) for one in addresses):
            raise NotPublic("the host has an address that is not public")
        failure: httpcore.ConnectError | httpcore.ConnectTimeout = httpcore.ConnectError(
            "the host has no address"
        )
        for address in addresses:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        """Refuse: no endpoint is a socket of this host."""
        raise httpcore.ConnectError("an endpoint is no socket")

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)
