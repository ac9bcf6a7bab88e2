"""What counts as JSON here, and what a body that is none is told."""

import contextlib
import json
import time
from typing import Any

import pytest

from app.http.strict_json import DEEPEST, LARGEST, parse
from testkit.company import Company, Service
from testkit.problems import pointers, problem
from testkit.service import as_service


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        None,
        True,
        "text",
        0,
        -1,
        1.5,
        -2.5e-3,
        LARGEST,
        -LARGEST,
        {"a": [{"b": {"c": [1, 2, {"d": 'é\n"\\/ [[[{{{'}]}}]},
        ["[" * 1000, '"' * 50, "\\" * 51],
        {str(n): [{}] for n in range(1000)},
    ],
)
def test_what_is_taken(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False), json.dumps(value, indent=3)):
        assert parse(text.encode()) == value


REFUSED = {
    "empty": b"",
    "white space": b" ",
    "not UTF-8": b'"\xff"',
    "a surrogate in UTF-8": b'"\xed\xa0\x80"',
    "UTF-16": '"text"'.encode("utf-16"),
    "a mark of byte order": b"\xef\xbb\xbf{}",
    "a raw NUL": b'"a\x00b"',
    "a raw line break": b'"a\nb"',
    "NaN": b"NaN",
    "Infinity": b'{"a": Infinity}',
    "minus Infinity": b"[-Infinity]",
    "one more than the largest": str(LARGEST + 1).encode(),
    "one less than the smallest": str(-LARGEST - 1).encode(),
    "a long number": b"9" * 60_000,
    "a long number in an object": b'{"a": ' + b"1" * 5000 + b"}",
    "a large exponent": b"1e999",
    "a long fraction": b"1." + b"1" * 50 + b"e400",
    "two members of one name": b'{"a": 1, "a": 1}',
    "two members of one name inside": b'{"b": [{"a": 1, "a": 2}]}',
    "two members of one name, differently written": b'{"a": 1, "\\u0061": 2}',
    "too deep": b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1),
    "very deep": b"[" * 30_000,
    "deep objects": b'{"a":' * 9_000 + b"1" + b"}" * 9_000,
    "deep behind an open string": b'{"a": "\\"}' + b"[" * 9_000,
    "two values": b"{} {}",
    "a comment": b"{} // no",
    "a comma too many": b"[1,]",
    "single quotes": b"{'a': 1}",
    "cut": b'{"a": "b',
    "an escape that is none": b'"\\x41"',
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not(body: bytes) -> None:
    with pytest.raises(json.JSONDecodeError) as refused:
        parse(body)
    assert refused.value.doc == "" or refused.value.doc == body.decode()


def test_as_deep_as_allowed() -> None:
    assert parse(b"[" * DEEPEST + b"]" * DEEPEST)
    assert len(parse(b"[" + b",".join([b"[]"] * 10_000) + b"]")) == 10_000


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 65_000,
        b'"' + b"\\" * 65_000,
        b"{" + b'"' * 65_000,
        b"[" + b"[]," * 21_000 + b"[]]",
        b'["' + b'\\"[' * 21_000,
        b"1" * 65_000,
    ],
    ids=range(6),
)
def test_no_body_takes_long(body: bytes) -> None:
    started = time.thread_time()
    with contextlib.suppress(json.JSONDecodeError):
        parse(body)
    assert time.thread_time() - started < 0.5, (
        "seconds of computing, which others on the machine do not lengthen"
    )


@pytest.fixture(scope="module")
async def company(service: Service) -> Company:
    return await service.company()


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b'{"total": 5, "total": 500}', "two members of one name"),
        (b'{"total": NaN}', "NaN"),
        (b'{"total": 1' + b"0" * 400 + b"}", "too large"),
        (b'{"total": ' + b"[" * 40 + b"]" * 40 + b"}", "deep"),
        (b'{"total": "\xff"}', "UTF-8"),
        (b'{"total": 5', "delimiter"),
    ],
)
async def test_a_caller_is_told_the_rule(service: Service, company: Company, body: bytes, rule: str) -> None:
    for who in (company.owner.headers, as_service("admin")):
        for method, path in (("PUT", "seats"), ("POST", "quote")):
            answer = await service.client.request(
                method,
                f"{company.path}/{path}",
                content=body,
                headers={**who, "Content-Type": "application/json"},
            )
            document = problem(answer, 422, "invalid_request")
            assert rule in document["detail"], document
            assert document["errors"][0]["pointer"] == ""


@pytest.mark.parametrize(
    "number", [0, -1, 1_000_000, 2**31, 2**53 - 1, -(2**53) + 1, 1.0, 1.5, 1e3, "5", True]
)
async def test_numbers_out_of_range(service: Service, company: Company, number: Any) -> None:
    """None of them becomes another number, and none reaches Stripe or a column that cannot hold it."""
    owner, admin = company.owner.headers, as_service("admin")
    assert (await service.get(company.path, owner)).status_code == 200
    plan = f"/v1/subscriptions/{company.subscription_id}"
    item = (await company.state())["items"]["data"][0]["id"]
    buying = f"/v1/customers/{company.owner.customer_id}/subscriptions"
    before = await service.row_counts()
    for method, path, body in (
        ("PUT", f"{company.path}/seats", {"total": number}),
        ("POST", f"{company.path}/quote", {"total": number}),
        ("PATCH", plan, {"items": [{"id": item, "quantity": number}]}),
        ("POST", f"{plan}/preview", {"items": [{"id": item, "quantity": number}]}),
        ("POST", buying, {"items": [{"price_id": company.price_id, "quantity": number}]}),
        ("POST", buying, {"items": [{"price_id": company.price_id}], "trial_period_days": number}),
    ):
        who = admin if path == buying else owner
        problem(await service.send(method, path, who, body), 422, "invalid_request")
    assert await service.row_counts() == before


@pytest.mark.parametrize(
    "limit", ["0", "-1", "101", "1e9", "1000000000000000000000", "", "1.5", "NaN", "٣", "+5 "]
)
async def test_page_sizes(service: Service, company: Company, limit: str) -> None:
    for path in (
        "/v1/products",
        "/v1/customers/me/subscriptions",
        "/v1/customers/me/payment-methods",
        "/v1/customers/me/invoices",
        f"{company.path}/users",
        f"{company.path}/audit-events",
    ):
        answer = await service.get(path, company.owner.headers, limit=limit)
        if answer.status_code != 200:
            problem(answer, 422, "invalid_request")
        else:
            # Another way of writing a number within the range.
            assert limit in ("٣", "+5 ")


ODD = [
    "\x00",
    "a\x00b",
    "\ud800",
    "a\udfffb",
    "\u202e",
    "\uffff",
    "\x1b[2J",
    "x" * 60_000,
    "' or 1=1 --",
    "\U0010ffff",
]


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
async def test_odd_texts_in_every_field(service: Service, company: Company, text: str) -> None:
    """Refused, or taken as what they are: never a fault of ours."""
    plan = f"/v1/subscriptions/{company.subscription_id}"
    for method, path, body in (
        ("POST", f"{plan}/cancel", {"reason": text}),
        ("PATCH", plan, {"discounts": [{"coupon": text}]}),
        ("PATCH", plan, {"promotion_code": text}),
        ("PATCH", plan, {"quote_id": text}),
        ("PATCH", plan, {"trial_end": text}),
        ("PATCH", f"/v1/customers/{company.user.customer_id}", {"name": text}),
        ("PATCH", f"/v1/customers/{company.user.customer_id}", {"phone": text}),
        ("POST", "/v1/customers", {"user_id": "u", "email": text}),
        ("PATCH", f"{company.path}/users", {"add": [{"email": text}]}),
        ("PATCH", f"{company.path}/users", {text: 1}),
        ("POST", f"{company.path}/transfer", {"to_customer_id": text}),
    ):
        answer = await service.client.request(
            method,
            path,
            content=json.dumps(body).encode(),
            headers={**as_service("admin"), "Content-Type": "application/json"},
        )
        assert answer.status_code in (200, 201, 404, 413, 422), (path, body, answer.text)
    for path in (f"{company.path}/users", f"{company.path}/audit-events", "/v1/products"):
        for name in ("search", "cursor", "ids", "role", "currency", "fresh"):
            raw = "".join(f"%{byte:02x}" for byte in text[:1000].encode(errors="surrogatepass"))
            answer = await service.client.get(f"{path}?{name}={raw}", headers=dict(company.owner.headers))
            assert answer.status_code in (200, 422), (path, name, answer.text)


@pytest.mark.parametrize(
    "moment",
    [
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2026-02-30T00:00:00Z",
        "1e400",
        -(10**15),
        10**15,
    ],
)
async def test_moments_out_of_range(service: Service, company: Company, moment: Any) -> None:
    path = f"/v1/subscriptions/{company.subscription_id}"
    for name in ("trial_end", "proration_date"):
        answer = await service.send("PATCH", path, as_service("admin"), {name: moment})
        assert pointers(problem(answer, 422, "invalid_request"))[0].startswith(f"/{name}")
