"""Somebody else's id and one that was never given out, wherever a request takes one: the same answer, byte for byte."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import httpx

from verification.adversary import acts
from verification.adversary.acts import Ask
from verification.adversary.world import ABSENT_INVITATION, Plan, World, absent_like, absent_plan, in_batches

REQUEST_ID = "hostile-pairs"
TOLD_ONCE = re.compile(rb'op_[0-9a-f]{24}|qt_[0-9a-f]{32}|"expires_at":"[^"]*"')
"""An operation that refuses everything is still told by an id of its own, and so is a quote."""

Try = Callable[[World, Plan, str], Ask]
"""A request about the principal's own plan, with an id put in."""


@dataclass(frozen=True)
class Slot:
    """A place for an id; `foreign` is what somebody else has there."""

    place: str
    ask: Try
    foreign: Callable[[World, Plan], str]


def _plan(method: str, tail: str, build: Callable[[World, Plan, str], object]) -> Try:
    return lambda w, p, i: Ask(method, f"/v1/subscriptions/{p.subscription_id}{tail}", build(w, p, i))


def _shared(method: str, tail: str, build: Callable[[World, Plan, str], object]) -> Try:
    return lambda w, p, i: Ask(method, f"/v1/shared-subscriptions/{p.subscription_id}{tail}", build(w, p, i))


def _mine(method: str, tail: str, build: Callable[[World, Plan, str], object] | None = None) -> Try:
    return lambda w, p, i: Ask(
        method, f"/v1/customers/me{tail.format(id=i)}", None if build is None else build(w, p, i)
    )


def _asking(path: str, name: str) -> Try:
    return lambda w, p, i: Ask("GET", path.format(p=p), query={name: i})


def _items(w: World, p: Plan, item: str) -> object:
    return {"items": [{"id": item, "quantity": p.seats + 1}]}


def _priced(w: World, p: Plan, price: str) -> object:
    return {"items": [{"price_id": price}]}


def _card(w: World, f: Plan) -> str:
    return f.payment_method_id


def _member(w: World, f: Plan) -> str:
    return f.user.customer_id


def _item(w: World, f: Plan) -> str:
    return f.item_id


def _subscription(w: World, f: Plan) -> str:
    return f.subscription_id


def _invitation(w: World, f: Plan) -> str:
    return f.invited[0].id


def _offered(which: str) -> Callable[[World, Plan], str]:
    return lambda w, f: w.prices[which]


SLOTS = (
    Slot("path payment_method_id", _mine("DELETE", "/payment-methods/{id}"), _card),
    Slot("query subscription_id", _asking("/v1/customers/me/invoices", "subscription_id"), _subscription),
    Slot(
        "query subscription_id of the next invoice",
        _asking("/v1/customers/me/upcoming-invoice", "subscription_id"),
        _subscription,
    ),
    Slot(
        "query product_id",
        _asking("/v1/customers/me/access", "product_id"),
        lambda w, f: w.unlisted_product_id,
    ),
    Slot(
        "body payment_method_id of a purchase",
        _mine(
            "POST",
            "/subscriptions",
            lambda w, p, i: {"items": [{"price_id": w.prices["on offer"]}], "payment_method_id": i},
        ),
        _card,
    ),
    Slot(
        "body payment_method_id of a change",
        _plan("PATCH", "", lambda w, p, i: {"payment_method_id": i}),
        _card,
    ),
    Slot(
        "body payment_method_id to attach",
        _mine("POST", "/payment-methods", lambda w, p, i: {"payment_method_id": i}),
        _card,
    ),
    Slot(
        "body payment_method_id as default",
        _mine("PUT", "/default-payment-method", lambda w, p, i: {"payment_method_id": i}),
        _card,
    ),
    Slot("body items.id", _plan("PATCH", "", _items), _item),
    Slot("body items.id of a preview", _plan("POST", "/preview", _items), _item),
    *(
        Slot(f"body price_id {which} {where}", ask, _offered(which))
        for which in ("not listed", "inactive", "of an archived product", "of the other mode")
        for where, ask in (
            ("bought", _mine("POST", "/subscriptions", _priced)),
            ("added", _plan("PATCH", "", _priced)),
            ("previewed", _plan("POST", "/preview", _priced)),
        )
    ),
    Slot(
        "body quote_id of a change",
        _plan("PATCH", "", lambda w, p, i: {"cancel_at_period_end": True, "quote_id": i}),
        lambda w, f: w.foreign_quote,
    ),
    Slot(
        "body quote_id of seats",
        _shared("PUT", "/seats", lambda w, p, i: {"total": p.seats + acts.MORE, "quote_id": i}),
        lambda w, f: w.foreign_quote,
    ),
    Slot(
        "body quote_id of members",
        _shared(
            "PATCH",
            "/users",
            lambda w, p, i: {
                "add": [{"email": f"n{n}@example.com"} for n in range(p.seats)],
                "over_capacity": "add_seats",
                "quote_id": i,
            },
        ),
        lambda w, f: w.foreign_quote,
    ),
    Slot(
        "body subscription_item_id of seats",
        _shared("PUT", "/seats", lambda w, p, i: {"total": p.seats + 1, "subscription_item_id": i}),
        _item,
    ),
    Slot(
        "body subscription_item_id of a quote",
        _shared("POST", "/quote", lambda w, p, i: {"total": p.seats + 1, "subscription_item_id": i}),
        _item,
    ),
    Slot(
        "body subscription_item_id of members",
        _shared(
            "PATCH",
            "/users",
            lambda w, p, i: {
                "add": [{"email": f"n{n}@example.com"} for n in range(p.seats)],
                "over_capacity": "add_seats",
                "subscription_item_id": i,
            },
        ),
        _item,
    ),
    Slot(
        "body customer_id to add",
        _shared("PATCH", "/users", lambda w, p, i: {"add": [{"customer_id": i}]}),
        _member,
    ),
    Slot("body customer_id to remove", _shared("PATCH", "/users", lambda w, p, i: {"remove": [i]}), _member),
    Slot(
        "body customer_id to update",
        _shared("PATCH", "/users", lambda w, p, i: {"update": [{"customer_id": i, "role": "user"}]}),
        _member,
    ),
    Slot(
        "body customer_id beside the e-mail of its holder",
        _shared(
            "PATCH",
            "/users",
            # More than fit, so that the holder, who may be on several subscriptions, is added to none.
            lambda w, p, i: {
                "add": [
                    {"email": w.apart(p).user.email},
                    *({"email": f"n{n}@example.com"} for n in range(p.seats)),
                ],
                "remove": [i],
            },
        ),
        _member,
    ),
    Slot(
        "body customer_id of a quote",
        _shared("POST", "/quote", lambda w, p, i: {"remove": [i]}),
        _member,
    ),
    Slot(
        "path invitation_id to revoke",
        lambda w, p, i: Ask("DELETE", f"/v1/shared-subscriptions/{p.subscription_id}/invitations/{i}"),
        _invitation,
    ),
    Slot(
        "path invitation_id to resend",
        lambda w, p, i: Ask("POST", f"/v1/shared-subscriptions/{p.subscription_id}/invitations/{i}/resend"),
        _invitation,
    ),
    Slot("body to_customer_id", _shared("POST", "/transfer", lambda w, p, i: {"to_customer_id": i}), _member),
    Slot(
        "query cursor of the people",
        _asking("/v1/shared-subscriptions/{p.subscription_id}/users", "cursor"),
        lambda w, f: w.foreign_cursor,
    ),
    Slot(
        "query cursor of the audit trail",
        _asking("/v1/shared-subscriptions/{p.subscription_id}/audit-events", "cursor"),
        lambda w, f: w.foreign_cursor,
    ),
    Slot(
        "query cursor of the invoices",
        _asking("/v1/customers/me/invoices", "cursor"),
        lambda w, f: w.foreign_cursor,
    ),
    Slot(
        "If-Match",
        lambda w, p, i: Ask(
            "PATCH",
            f"/v1/subscriptions/{p.subscription_id}",
            {"cancel_at_period_end": True},
            headers={"If-Match": i},
        ),
        lambda w, f: w.foreign_etag,
    ),
)

STANDINGS: Mapping[str, str] = {
    **dict.fromkeys(("owner", "manager", "user"), "owner pays"),
    **dict.fromkeys((f"write key for the {who}" for who in ("owner", "manager", "user")), "owner pays"),
    **dict.fromkeys(("payer", "write key for the payer", "stranger", "newcomer"), "active"),
}
"""The plan that each principal is tried on; a stranger's own is another."""


@dataclass(frozen=True)
class Pair:
    name: str
    principal: str
    plan: Plan
    foreign: Ask
    absent: Ask
    ids: tuple[str, str]


def all_pairs(world: World) -> Iterator[Pair]:
    for principal, kind in STANDINGS.items():
        plan = world.shared[kind]
        apart = world.apart(plan) if principal != "stranger" else plan
        nowhere = absent_plan(apart)
        who = world.people_of(plan).get(principal.rpartition(" the ")[2], plan.owner)
        for name, act in acts.PLAN_ACTS.items():
            foreign, absent = act.ask(world, apart, who), act.ask(world, nowhere, who)
            # What the body names besides is not under test here, and has a slot of its own.
            same = Ask(absent.method, absent.path, foreign.body, absent.query)
            yield Pair(f"path of: {name}", principal, plan, foreign, same, ("", ""))
        for name, customer_act in acts.CUSTOMER_ACTS.items():
            known, unknown = apart.second.customer_id, absent_like(apart.second.customer_id)
            yield Pair(
                f"path of: customer: {name}",
                principal,
                plan,
                customer_act.ask(world, apart, known),
                customer_act.ask(world, apart, unknown),
                (known, unknown),
            )
        for slot in SLOTS:
            known = slot.foreign(world, apart)
            unknown = unknown_like(known)
            yield Pair(
                slot.place,
                principal,
                plan,
                slot.ask(world, plan, known),
                slot.ask(world, plan, unknown),
                (known, unknown),
            )


def unknown_like(known: str) -> str:
    """Of the same shape, and nobody's."""
    if known.startswith("qt_"):
        return f"qt_{'0' * 32}"
    if known.startswith("inv_"):
        return ABSENT_INVITATION.id
    if known.startswith('"'):
        return f'"{"0" * (len(known) - 2)}"'
    return absent_like(known) if "_" in known[:6] else "0" * len(known)


async def compare(world: World, api: httpx.AsyncClient, pairs: Sequence[Pair]) -> list[str]:
    """The pairs whose two answers differ in status, headers or body, or are no refusals."""
    misses: list[str] = []

    async def told(pair: Pair, asked: Ask, own: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        answer = await api.request(
            asked.method,
            asked.path,
            headers={
                **asked.headers,
                **world.headers(pair.principal, pair.plan),
                "X-Request-Id": REQUEST_ID,
            },
            params=dict(asked.query),
            json=asked.body,
        )
        body = TOLD_ONCE.sub(b"", answer.content)
        headers = [(name, value) for name, value in answer.headers.raw if name.lower() != b"date"]
        return answer.status_code, headers, body.replace(own.encode(), b"") if own else body

    async def one(pair: Pair) -> None:
        foreign = await told(pair, pair.foreign, pair.ids[0])
        absent = await told(pair, pair.absent, pair.ids[1])
        if foreign != absent:
            misses.append(f"{pair.principal} / {pair.name}: {foreign}, but {absent}")
        elif foreign[0] < 400 and not (pair.name.startswith("query") or pair.name.endswith("a quote")):
            misses.append(f"{pair.principal} / {pair.name}: not refused: {foreign}")

    await in_batches(one(pair) for pair in pairs)
    return misses
