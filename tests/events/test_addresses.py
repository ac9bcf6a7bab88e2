"""Beside a live key events are sent to public addresses only, judged when the connection is made."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from app.errors import InvalidRequest
from app.events.addresses import check_url, is_public
from app.events.sending import Sent, WebhookSender, authority
from testkit.receiver import receiving

NOT_PUBLIC = (
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
)
PUBLIC = ("1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:1.1.1.1")
OTHER_FORMS = ("2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.1.", "[::1]", "[::ffff:7f00:1]")


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_address_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(InvalidRequest):
        check_url(f"https://{host}/hooks", live=True)


@pytest.mark.parametrize("address", PUBLIC)
def test_address_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("host", OTHER_FORMS)
def test_literal_is_refused_in_every_form(host: str) -> None:
    with pytest.raises(InvalidRequest):
        check_url(f"https://{host}/hooks", live=True)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hooks",
        "https://user@example.com/hooks",
        "https://user:password@example.com/hooks",
        "https://example.com/hooks#part",
        "https:///hooks",
        "ftp://example.com",
        "file:///etc/passwd",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://exa mple.com/",
        "https://example.com\\@127.0.0.1/",
        "https://ex\u00e4mple.com/",
        "https://[::1",
        "//example.com",
        "",
        "https://example.com/" + "x" * 2000,
    ],
)
def test_url_is_refused_beside_a_live_key(url: str) -> None:
    with pytest.raises(InvalidRequest):
        check_url(url, live=True)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000/hooks", "http://localhost/hooks", "https://[::1]:8443/"]
)
def test_local_url_is_allowed_beside_a_test_key(url: str) -> None:
    """Readings, events 16; user information is refused always."""
    assert check_url(url, live=False) == url
    with pytest.raises(InvalidRequest):
        check_url(url.replace("://", "://user@"), live=False)


async def sent_to(url: str, *, live: bool) -> tuple[int | None, str | None]:
    async with WebhookSender(live=live, seconds=2.0) as sender:
        sent = await sender.send(url, "evt_1", b"{}", ["whsec_" + "A" * 43 + "="])
    return sent.status, sent.error


async def test_name_of_a_private_address_is_not_connected_beside_a_live_key() -> None:
    async with receiving() as receiver:
        url = receiver.url.replace("127.0.0.1", "localhost")
        assert await sent_to(url, live=True) == (None, "the host has an address that is not public")
        assert await sent_to(receiver.url, live=True) == (None, "the host has an address that is not public")
        assert receiver.received == []
        assert await sent_to(url, live=False) == (204, None)


async def test_rebound_name_is_judged_at_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name was public when it was stored, and leads to this host now: nothing is connected."""
    answers = [["93.184.215.14", "127.0.0.1"], ["127.0.0.1"], ["::1"], ["169.254.169.254"]]
    asked = []

    def getaddrinfo(host: str, port: int | None, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in answers[len(asked) - 1]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with receiving() as receiver:
        url = receiver.url.replace("127.0.0.1", "rebound.example")
        for _ in answers:
            assert await sent_to(url, live=True) == (None, "the host has an address that is not public")
        assert receiver.received == []
    assert asked == ["rebound.example"] * len(answers)


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[str], threading.Event]]:
    """Names below slow.example are this host, but their name server is silent until the event is set.

    The list has each name once for each look-up that has begun.
    """
    asked: list[str] = []
    answered = threading.Event()
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *rest: Any, **named: Any) -> Any:
        if not str(host).endswith("slow.example"):
            return resolve(host, port, *rest, **named)
        asked.append(host)
        answered.wait(20.0)
        return resolve("127.0.0.1", port, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield asked, answered
    answered.set()


async def test_silent_name_server_holds_up_no_other_look_up(
    slow_names: tuple[list[str], threading.Event],
) -> None:
    """Its look-ups held every thread of the pool in which the worker finds Stripe and PostgreSQL too."""
    asked, answered = slow_names
    async with receiving() as receiver, WebhookSender(live=False, seconds=1.0) as sender:
        secrets = ["whsec_" + "A" * 43 + "="]

        def send(host: str) -> Coroutine[Any, Any, Sent]:
            return sender.send(receiver.url.replace("127.0.0.1", host), "evt_1", b"{}", secrets)

        for _ in range(2):
            slow = [asyncio.create_task(send("a.slow.example")) for _ in range(40)]
            await asyncio.sleep(0.1)
            async with asyncio.timeout(0.8):
                assert await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 443)
                assert (await send("localhost")).status == 204
            assert {sent.error for sent in await asyncio.gather(*slow)} == {"no answer within 1 s"}
        assert asked == ["a.slow.example"], "one look-up of a name at a time"
        waiting = asyncio.create_task(send("a.slow.example"))
        await asyncio.sleep(0.1)
        answered.set()
        assert (await waiting).status == 204
        assert (await send("b.slow.example")).status == 204
    assert asked == ["a.slow.example", "b.slow.example"]


def test_process_ends_while_a_name_server_is_silent() -> None:
    """A thread that looks up a name cannot be stopped, and the end of a worker must not wait for it."""
    program = """
import asyncio, socket, time
from app.events.sending import WebhookSender
socket.getaddrinfo = lambda *_, **__: time.sleep(60)
async def main():
    async with WebhookSender(live=False, seconds=0.3) as sender:
        print((await sender.send("http://slow.example/", "evt_1", b"{}", [])).error)
asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (ended.stdout.strip(), ended.returncode) == ("no answer within 0.3 s", 0), ended.stderr


async def test_redirect_is_not_followed() -> None:
    async with receiving() as target, receiving() as receiver:
        receiver.status = lambda _: 302
        receiver.headers = f"location: {target.url}\r\n"
        assert await sent_to(receiver.url, live=False) == (302, "answered 302")
        assert target.received == []


async def test_long_answer_is_not_read_to_its_end() -> None:
    async with receiving() as receiver:
        receiver.body = b"x" * 5_000_000
        receiver.status = lambda _: 200
        assert await sent_to(receiver.url, live=False) == (200, None)


async def test_silent_host_fails_in_time() -> None:
    async with receiving() as receiver:
        receiver.seconds = 10.0
        assert await sent_to(receiver.url, live=False) == (None, "no answer within 2 s")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://hooks.example/events", b"hooks.example"),
        ("https://hooks.example:8443/events", b"hooks.example:8443"),
        ("https://[2606:4700::1]/events", b"[2606:4700::1]"),
        ("https://[2606:4700::1]:8443/events", b"[2606:4700::1]:8443"),
    ],
)
def test_host_header_names_the_host_when_the_url_has_an_address_or_a_port(url: str, host: bytes) -> None:
    assert authority(url) == host
