"""Deliveries that Stripe made, and deliveries that somebody made up or that nobody can read."""

import contextlib
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidWebhook
from app.stripe import webhooks

OLD, NEW = "whsec_the_old_one", "whsec_the_new_one"
NOW = int(time.time())
EVENT: dict[str, Any] = {
    "id": "evt_1",
    "object": "event",
    "type": "customer.updated",
    "created": NOW,
    "api_version": "2026-10-28.endive",
    "livemode": False,
    "data": {"object": {"id": "cus_1", "object": "customer"}, "previous_attributes": {"name": None}},
}
BODY = json.dumps(EVENT).encode()


def signature(body: bytes = BODY, secret: str = NEW, at: int | str = NOW) -> str:
    return hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()


def header(body: bytes = BODY, secret: str = NEW, at: int | str = NOW) -> str:
    return f"t={at},v1={signature(body, secret, at)}"


GOOD = signature()
GENUINE = [
    header(),
    header(secret=OLD),
    header(at=NOW - 290),
    header(at=NOW + 290),
    f"t={NOW},v1={'0' * 64},v1={GOOD}",
    f"t={NOW},v1={GOOD},v1={'0' * 64}",
    f"t={NOW},v0=whatever,v1={GOOD}",
    f"v1={GOOD},t={NOW}",
    f"t={NOW},v1={signature(secret=OLD)},v1={GOOD}",
    f"t={NOW},x=1,v1={GOOD}",
]
FORGED: list[tuple[bytes, str | None]] = [
    (BODY, None),
    (BODY, ""),
    (BODY, "t"),
    (BODY, "="),
    (BODY, ","),
    (BODY, "nonsense"),
    (BODY, f"t={NOW}"),
    (BODY, f"v1={GOOD}"),
    (BODY, f"t={NOW},v1="),
    (BODY, f"t={NOW},v1"),
    (BODY, f"t={NOW},v0={GOOD}"),
    (BODY, f"t={NOW},V1={GOOD}"),
    (BODY, f"T={NOW},v1={GOOD}"),
    (BODY, f"t={NOW},v1={'0' * 64}"),
    (BODY, f"t={NOW},v1={GOOD[:-1]}"),
    (BODY, f"t={NOW},v1={GOOD}0"),
    (BODY, f"t={NOW},v1={GOOD.upper()}"),
    (BODY, f"t={NOW + 1},v1={GOOD}"),
    (BODY, f"t=,v1={GOOD}"),
    (BODY, f"t=now,v1={GOOD}"),
    (BODY, f"t=-{NOW},v1={GOOD}"),
    (BODY, f"t=+{NOW},v1={GOOD}"),
    (BODY, f"t= {NOW},v1={GOOD}"),
    (BODY, f"t={NOW}.0,v1={GOOD}"),
    (BODY, f"t=1_7{NOW},v1={GOOD}"),
    (BODY, f"t=0x10,v1={GOOD}"),
    (BODY, f"t={'9' * 40},v1={GOOD}"),
    (BODY, f"t={'9' * 4000},v1={GOOD}"),
    (BODY, f"t={NOW},t={NOW},v1={GOOD}"),
    (BODY, header(secret="")),
    (BODY, header(secret="whsec_somebody_elses")),
    (BODY, header(secret=NEW + " ")),
    (BODY, header(secret=NEW.upper())),
    (BODY, header(at=NOW - 86_400)),
    (BODY, header(at=0)),
    (BODY, header(at=NOW + 10 * 365 * 86_400)),
    (BODY, f"t={NOW + 90_000},t={NOW},v1={signature(at=NOW + 90_000)}"),
    (BODY, f" t={NOW},t={NOW + 90_000},v1={signature(at=NOW + 90_000)}"),
    (BODY, f"t={NOW - 90_000}=1,t={NOW},v1={signature(at=NOW - 90_000)}"),
    (BODY, f"t={NOW},t={NOW - 90_000},v1={signature(at=NOW - 90_000)}"),
    (BODY, f"t={NOW},v1={GOOD}é"),
    (BODY, f"t={NOW},v1=\u0430{GOOD[1:]}"),
    (BODY, f"t=\u0661{NOW},v1={GOOD}"),
    (BODY, f"t={NOW},v1=\ud800"),
    (BODY, f"t={NOW},v1={GOOD}" + ",v1=0" * 2000),
    (BODY, f"t={NOW},v1=" + "a" * 5000),
    (BODY + b" ", header()),
    (b" " + BODY, header()),
    (BODY.replace(b"cus_1", b"cus_2"), header()),
    (BODY[:-1], header()),
    (b"", header()),
    (b"\xff" + BODY, header(b"\xff" + BODY)),
    (BODY.replace(b"cus_1", b"cus_\xe9"), header(BODY.replace(b"cus_1", b"cus_\xe9"))),
    (BODY.decode().encode("utf-16"), header(BODY.decode().encode("utf-16"))),
    (b"\xed\xa0\x80", header(b"\xed\xa0\x80")),
    (b"\x80" * 1000, header(b"\x80" * 1000)),
]


@pytest.mark.parametrize("given_header", GENUINE, ids=range(len(GENUINE)))
def test_what_a_secret_of_ours_signed_is_accepted(given_header: str) -> None:
    webhooks.verify(BODY, given_header, [OLD, NEW], now=NOW)


OUT_OF_TIME = [(BODY, header(at=NOW - 400)), (BODY, header(at=NOW + 400))]
"""By the tests' clock; by a real one the second is good soon after."""


@pytest.mark.parametrize(
    ("body", "given_header"), [*FORGED, *OUT_OF_TIME], ids=range(len(FORGED) + len(OUT_OF_TIME))
)
def test_what_no_secret_of_ours_signed_lately_is_refused(body: bytes, given_header: str | None) -> None:
    with pytest.raises(InvalidWebhook):
        webhooks.verify(body, given_header, [OLD, NEW], now=NOW)


def test_without_a_secret_nothing_is_accepted() -> None:
    for secrets in ([], [""], ["  "]):
        for signed_with in ("", "  ", NEW):
            with pytest.raises(InvalidWebhook):
                webhooks.verify(BODY, header(secret=signed_with), secrets, now=NOW)


def test_a_secret_that_was_taken_out_no_longer_counts() -> None:
    webhooks.verify(BODY, header(secret=OLD), [NEW, OLD], now=NOW)
    with pytest.raises(InvalidWebhook):
        webhooks.verify(BODY, header(secret=OLD), [NEW], now=NOW)


@pytest.mark.parametrize(
    ("age", "accepted"), [(0, True), (300, True), (301, False), (-300, True), (-301, False)]
)
def test_the_window_is_five_minutes_both_ways(age: int, accepted: bool) -> None:
    """Both edges are judged by the same clock."""
    for now in (NOW, NOW + 10**8, 10**9):
        expectation = contextlib.nullcontext() if accepted else pytest.raises(InvalidWebhook)
        with expectation:
            webhooks.verify(BODY, header(at=now - age), [NEW], now=now)


@given(st.binary(max_size=60), st.none() | st.text(max_size=60))
def test_noise_is_refused_and_raises_nothing_else(body: bytes, noise: str | None) -> None:
    with pytest.raises(InvalidWebhook):
        webhooks.verify(body, noise, [NEW])


def changed(**fields: Any) -> bytes:
    return json.dumps({**EVENT, **fields}).encode()


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in EVENT.items() if key != name}).encode()


DEEP = b"[" * 100_000 + b"]" * 100_000
UNREADABLE: list[bytes] = [
    b"",
    b" ",
    b"\x00",
    b"{",
    b"{}",
    b"[]",
    b"[" + BODY + b"]",
    b"null",
    b"true",
    b"1",
    b"NaN",
    b'"event"',
    BODY + b"{}",
    BODY[:-2],
    DEEP,
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    BODY.replace(b'"cus_1"', b"[" * 2000 + b"]" * 2000),
    BODY.replace(b"cus_1", b"\\ud800"),
    BODY.replace(b"evt_1", b"\\udfff"),
    BODY.replace(b"cus_1", b"\x01"),
    BODY.replace(b'"cus_1"', b"1e999"),
    BODY.replace(b'"cus_1"', b"Infinity"),
    without("id"),
    without("object"),
    without("type"),
    without("created"),
    without("data"),
    changed(id=None),
    changed(id=""),
    changed(id=5),
    changed(id=["evt_1"]),
    changed(id="e" * 256),
    changed(id="evt_\x00"),
    changed(type=None),
    changed(type=""),
    changed(type=["customer.updated"]),
    changed(type="t" * 256),
    changed(type="customer\x00.updated"),
    changed(object="Event"),
    changed(object=None),
    changed(object=["event"]),
    changed(created=None),
    changed(created="1700000000"),
    changed(created=1.5),
    changed(created=True),
    changed(created=-1),
    changed(created=253_402_300_800),
    changed(created=2**63),
    changed(created=10**40),
    changed(data=None),
    changed(data=[]),
    changed(data="x"),
    changed(data={}),
    changed(data={"object": None}),
    changed(data={"object": []}),
    changed(data={"object": "cus_1"}),
    changed(data=[{"object": {}}]),
]


@pytest.mark.parametrize("body", UNREADABLE, ids=range(len(UNREADABLE)))
def test_signed_nonsense_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidWebhook):
        webhooks.read(body)


def test_the_corpus_is_large_enough() -> None:
    assert len(FORGED) + len(UNREADABLE) >= 100


def test_what_an_event_says() -> None:
    event = webhooks.read(BODY)
    assert event == webhooks.Event(
        id="evt_1",
        type="customer.updated",
        created=NOW,
        api_version="2026-10-28.endive",
        livemode=False,
        accounts=(),
        object={"id": "cus_1", "object": "customer"},
        previous={"name": None},
    )


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"api_version": None}, "api_version", None),
        ({"api_version": 5}, "api_version", None),
        ({"livemode": "true"}, "livemode", False),
        ({"livemode": 1}, "livemode", False),
        ({"livemode": True}, "livemode", True),
        ({"account": "acct_1"}, "accounts", ("acct_1",)),
        ({"context": "acct_1"}, "accounts", ("acct_1",)),
        ({"context": "org_1/acct_1"}, "accounts", ("acct_1",)),
        ({"account": "acct_1", "context": "acct_2"}, "accounts", ("acct_1", "acct_2")),
        ({"account": 5, "context": {"id": "acct_1"}}, "accounts", ("", "")),
        ({"account": None, "context": None}, "accounts", ()),
        ({"data": {"object": {}, "previous_attributes": []}}, "previous", {}),
        ({"data": {"object": {}}}, "object", {}),
    ],
)
def test_optional_parts_are_read_for_what_they_are(fields: dict[str, Any], name: str, value: object) -> None:
    assert getattr(webhooks.read(changed(**fields)), name) == value


def test_a_thin_notification_is_no_event_of_ours() -> None:
    assert (
        webhooks.read(b'{"id": "evt_1", "object": "v2.core.event", "type": "v1.billing.meter.error"}') is None
    )


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*EVENT, "previous_attributes"]), inner, max_size=8)
        ),
    )
)
def test_any_json_is_an_event_or_refused(value: object) -> None:
    with contextlib.suppress(InvalidWebhook):
        webhooks.read(json.dumps(value).encode("utf-8", "surrogatepass"))
