"""The requests that the table's names stand for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from testkit.company import Person, new_email
from verification.adversary.world import ABSENT_INVITATION, Plan, World

JSON = dict[str, Any]


@dataclass(frozen=True)
class Ask:
    """One request, whoever sends it."""

    method: str
    path: str
    body: Any = None
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Act:
    """`ask` builds the request about a plan for one person; `changes`: its success needs a plan of its own."""

    ask: Callable[[World, Plan, Person], Ask]
    ok: int = 200
    writes: bool = True
    changes: bool = True


def _see(path: str) -> Act:
    return Act(lambda w, p, who: Ask("GET", path.format(p=p)), writes=False, changes=False)


def _send(
    method: str,
    path: str,
    body: Callable[[World, Plan, Person], JSON] | None = None,
    *,
    ok: int = 200,
    changes: bool = True,
) -> Act:
    def ask(world: World, plan: Plan, who: Person) -> Ask:
        return Ask(method, path.format(p=plan), None if body is None else body(world, plan, who))

    return Act(ask, ok, changes=changes)


def _people(body: Callable[[World, Plan, Person], JSON], *, changes: bool = True) -> Act:
    return _send("PATCH", "/v1/shared-subscriptions/{p.subscription_id}/users", body, changes=changes)


def _transfer(body: Callable[[World, Plan, Person], JSON]) -> Act:
    return _send("POST", "/v1/shared-subscriptions/{p.subscription_id}/transfer", body)


def _invite(body: Callable[[World, Plan, Person], JSON]) -> Act:
    return _send("POST", "/v1/shared-subscriptions/{p.subscription_id}/invitations", body, ok=201)


def _items(**change: Any) -> Callable[[World, Plan, Person], JSON]:
    return lambda w, p, who: {"items": [{"id": p.item_id, **change}]}


def _too_many(world: World, plan: Plan, who: Person) -> JSON:
    return {"add": [{"email": new_email()} for _ in range(plan.seats)]}


_PLAN = "/v1/subscriptions/{p.subscription_id}"
_SHARED = "/v1/shared-subscriptions/{p.subscription_id}"
MORE = 2

PLAN_ACTS: Mapping[str, Act] = {
    "see the plan": _see(_PLAN),
    "see the shared plan": _see(_SHARED),
    "see its people": _see(_SHARED + "/users"),
    "see its audit trail": _see(_SHARED + "/audit-events"),
    "see the offer of transfer": _see(_SHARED + "/transfer"),
    "see its invoice": _see("/v1/invoices/{p.invoice_id}"),
    "see the owner's operation": _see("/v1/operations/{p.operation_id}"),
    "raise the quantity": _send(
        "PATCH", _PLAN, lambda w, p, who: {"items": [{"id": p.item_id, "quantity": p.seats + MORE}]}
    ),
    "lower the quantity": _send(
        "PATCH", _PLAN, lambda w, p, who: {"items": [{"id": p.item_id, "quantity": p.seats - 1}]}
    ),
    "lower it and change the price": _send(
        "PATCH",
        _PLAN,
        lambda w, p, who: {
            "items": [{"id": p.item_id, "quantity": p.seats - 1, "price_id": w.prices["dearer"]}]
        },
    ),
    "lower it below what is used": _send("PATCH", _PLAN, _items(quantity=1)),
    "change the price": _send(
        "PATCH", _PLAN, lambda w, p, who: {"items": [{"id": p.item_id, "price_id": w.prices["dearer"]}]}
    ),
    "add an item": _send("PATCH", _PLAN, lambda w, p, who: {"items": [{"price_id": w.prices["on offer"]}]}),
    "let it end by an update": _send("PATCH", _PLAN, lambda w, p, who: {"cancel_at_period_end": True}),
    "take the end back by an update": _send(
        "PATCH", _PLAN, lambda w, p, who: {"cancel_at_period_end": False}
    ),
    "pay it by another's card": _send(
        "PATCH", _PLAN, lambda w, p, who: {"payment_method_id": w.foreign.payment_method_id}
    ),
    "preview a quantity": _send(
        "POST",
        _PLAN + "/preview",
        lambda w, p, who: {"items": [{"id": p.item_id, "quantity": p.seats + MORE}]},
        changes=False,
    ),
    "cancel at the period's end": _send("POST", _PLAN + "/cancel", lambda w, p, who: {}),
    "cancel now": _send("POST", _PLAN + "/cancel", lambda w, p, who: {"when": "now"}),
    "resume": _send("POST", _PLAN + "/resume"),
    "set more seats": _send("PUT", _SHARED + "/seats", lambda w, p, who: {"total": p.seats + MORE}),
    "set fewer seats": _send("PUT", _SHARED + "/seats", lambda w, p, who: {"total": p.seats - 1}),
    "set fewer seats than are used": _send("PUT", _SHARED + "/seats", lambda w, p, who: {"total": 1}),
    "quote more seats": _send(
        "POST", _SHARED + "/quote", lambda w, p, who: {"total": p.seats + MORE}, changes=False
    ),
    "quote fewer seats": _send(
        "POST", _SHARED + "/quote", lambda w, p, who: {"total": p.seats - 1}, changes=False
    ),
    "allow purchases": _send("PUT", _SHARED + "/purchase-permission"),
    "withdraw the right to buy": _send("DELETE", _SHARED + "/purchase-permission", ok=204),
    "quote for a new user": _send("POST", _SHARED + "/quote", _too_many, changes=False),
    "add a user": _people(lambda w, p, who: {"add": [{"email": new_email()}]}),
    "add a manager": _people(lambda w, p, who: {"add": [{"email": new_email(), "role": "manager"}]}),
    "add oneself as manager": _people(lambda w, p, who: {"add": [{"email": who.email, "role": "manager"}]}),
    "add an outsider by id": _people(lambda w, p, who: {"add": [{"customer_id": p.outsider.customer_id}]}),
    "add an absent id": _people(lambda w, p, who: {"add": [{"customer_id": w.absent_customer}]}),
    "add who is a user already": _people(
        lambda w, p, who: {"add": [{"customer_id": p.second.customer_id}]}, changes=False
    ),
    "add a user again as manager": _people(
        lambda w, p, who: {"add": [{"customer_id": p.second.customer_id, "role": "manager"}]}
    ),
    "add who is elsewhere": _people(lambda w, p, who: {"add": [{"email": p.elsewhere.email}]}),
    "add more than fit": _people(_too_many),
    "buy seats for more than fit": _people(
        lambda w, p, who: {**_too_many(w, p, who), "over_capacity": "add_seats"}
    ),
    "remove a user": _people(lambda w, p, who: {"remove": [p.second.customer_id]}),
    "remove oneself": _people(lambda w, p, who: {"remove": [who.customer_id]}),
    "remove a peer manager": _people(lambda w, p, who: {"remove": [p.peer.customer_id]}),
    "remove the owner": _people(lambda w, p, who: {"remove": [p.owner.customer_id]}),
    "remove an outsider": _people(lambda w, p, who: {"remove": [p.outsider.customer_id]}),
    "remove an absent id": _people(lambda w, p, who: {"remove": [w.absent_customer]}),
    "make a user manager": _people(
        lambda w, p, who: {"update": [{"customer_id": p.second.customer_id, "role": "manager"}]}
    ),
    "make a peer manager user": _people(
        lambda w, p, who: {"update": [{"customer_id": p.peer.customer_id, "role": "user"}]}
    ),
    "make oneself manager": _people(
        lambda w, p, who: {"update": [{"customer_id": who.customer_id, "role": "manager"}]}
    ),
    "make the owner user": _people(
        lambda w, p, who: {"update": [{"customer_id": p.owner.customer_id, "role": "user"}]}
    ),
    "make an outsider user": _people(
        lambda w, p, who: {"update": [{"customer_id": p.outsider.customer_id, "role": "user"}]}
    ),
    "make an absent id user": _people(
        lambda w, p, who: {"update": [{"customer_id": w.absent_customer, "role": "user"}]}
    ),
    "leave": _send("DELETE", _SHARED + "/users/me"),
    "offer it to a user": _transfer(lambda w, p, who: {"to_customer_id": p.second.customer_id}),
    "offer it to oneself": _transfer(lambda w, p, who: {"to_customer_id": who.customer_id}),
    "offer it to an outsider": _transfer(lambda w, p, who: {"to_customer_id": p.outsider.customer_id}),
    "offer it to an absent id": _transfer(lambda w, p, who: {"to_customer_id": w.absent_customer}),
    "offer it to the payer": _transfer(lambda w, p, who: {"to_customer_id": p.payer.customer_id}),
    "offer it with purchases": _transfer(
        lambda w, p, who: {"to_customer_id": p.second.customer_id, "allow_purchases": True}
    ),
    "accept without an offer": _send("POST", _SHARED + "/transfer/accept"),
    "decline without an offer": _send("POST", _SHARED + "/transfer/decline"),
    "see its invitations": _see(_SHARED + "/invitations"),
    "see its open invitations": Act(
        lambda w, p, who: Ask("GET", _SHARED.format(p=p) + "/invitations", query={"state": "open"}),
        writes=False,
        changes=False,
    ),
    "invite a user": _invite(lambda w, p, who: {"email": new_email()}),
    "invite a manager": _invite(lambda w, p, who: {"email": new_email(), "role": "manager"}),
    "invite who is invited": _invite(lambda w, p, who: {"email": p.invited[0].email.upper()}),
    "invite who is a member": _invite(lambda w, p, who: {"email": p.second.email}),
    "resend a user's invitation": _send("POST", _SHARED + "/invitations/{p.invited[0].id}/resend"),
    "resend a manager's invitation": _send("POST", _SHARED + "/invitations/{p.invited[1].id}/resend"),
    "revoke a user's invitation": _send("DELETE", _SHARED + "/invitations/{p.invited[0].id}", ok=204),
    "revoke a manager's invitation": _send("DELETE", _SHARED + "/invitations/{p.invited[1].id}", ok=204),
    "revoke an absent invitation": _send("DELETE", _SHARED + f"/invitations/{ABSENT_INVITATION.id}", ok=204),
    "accept the offer": _send("POST", _SHARED + "/transfer/accept"),
    "decline the offer": _send("POST", _SHARED + "/transfer/decline"),
}


@dataclass(frozen=True)
class CustomerAct:
    """`ask` builds the request from what the path names."""

    ask: Callable[[World, Plan, str], Ask]
    ok: int = 200
    writes: bool = True


def _of_customer(
    method: str,
    tail: str = "",
    body: Callable[[World, Plan], JSON] | None = None,
    *,
    ok: int = 200,
    **query: Any,
) -> CustomerAct:
    def ask(world: World, plan: Plan, named: str) -> Ask:
        path = f"/v1/customers/{named}" + tail.format(p=plan, w=world)
        return Ask(method, path, None if body is None else body(world, plan), query)

    return CustomerAct(ask, ok, method != "GET")


def _buying(world: World, plan: Plan) -> JSON:
    return {"items": [{"price_id": world.prices["on offer"]}]}


def _access(world: World, plan: Plan, named: str) -> Ask:
    return Ask("GET", f"/v1/customers/{named}/access", query={"product_id": world.product_id})


CUSTOMER_ACTS: Mapping[str, CustomerAct] = {
    "see the profile": _of_customer("GET"),
    "see the subscriptions": _of_customer("GET", "/subscriptions"),
    "see the payment methods": _of_customer("GET", "/payment-methods"),
    "see the invoices": _of_customer("GET", "/invoices"),
    "see the next invoice": _of_customer("GET", "/upcoming-invoice"),
    "see the access": CustomerAct(_access, writes=False),
    "change the name": _of_customer("PATCH", body=lambda w, p: {"name": "Somebody Else"}),
    "change the e-mail": _of_customer("PATCH", body=lambda w, p: {"email": new_email()}),
    "begin a set-up": _of_customer("POST", "/setup-intents", ok=201),
    "attach a card": _of_customer(
        "POST", "/payment-methods", lambda w, p: {"payment_method_id": "pm_card_mastercard"}, ok=201
    ),
    "attach another's card": _of_customer(
        "POST", "/payment-methods", lambda w, p: {"payment_method_id": w.foreign.payment_method_id}
    ),
    "make the payer's card default": _of_customer(
        "PUT", "/default-payment-method", lambda w, p: {"payment_method_id": p.payment_method_id}
    ),
    "detach the payer's card": _of_customer("DELETE", "/payment-methods/{p.payment_method_id}", ok=204),
    "buy a plan": _of_customer("POST", "/subscriptions", _buying, ok=202),
    "buy a plan by another's card": _of_customer(
        "POST",
        "/subscriptions",
        lambda w, p: {**_buying(w, p), "payment_method_id": w.foreign.payment_method_id},
    ),
}


def guess_of(plan: Plan) -> str:
    """Another secret's token for an invitation of the plan."""
    return f"{plan.invited[0].token.rpartition('.')[0]}.{'A' * 43}"


def _by_token(what: str, token: Callable[[Plan], str], *, ok: int = 200, writes: bool = True) -> Act:
    def ask(world: World, plan: Plan, who: Person) -> Ask:
        return Ask("POST", f"/v1/invitations/{what}", {"token": token(plan)})

    return Act(ask, ok, writes=writes)


GENERAL_ACTS: Mapping[str, Act] = {
    "see the products": Act(lambda w, p, who: Ask("GET", "/v1/products"), writes=False),
    "see a promotion code": Act(lambda w, p, who: Ask("GET", "/v1/promotion-codes/WELCOME10"), writes=False),
    "see an absent promotion code": Act(
        lambda w, p, who: Ask("GET", "/v1/promotion-codes/WELCOME99"), writes=False
    ),
    "sign up": Act(lambda w, p, who: Ask("POST", "/v1/customers", {})),
    "sign up as somebody": Act(
        lambda w, p, who: Ask("POST", "/v1/customers", {"user_id": f"somebody-{new_email()}"}), ok=201
    ),
    "look an invitation up": _by_token("lookup", lambda p: p.invited[0].token, writes=False),
    "decline an invitation": _by_token("decline", lambda p: p.invited[0].token, ok=204),
    "accept an invitation": _by_token("accept", lambda p: p.invited[0].token),
    "look a guessed token up": _by_token("lookup", guess_of, writes=False),
    "decline a guessed token": _by_token("decline", guess_of),
    "accept a guessed token": _by_token("accept", guess_of),
    "sign up by an e-mail": Act(lambda w, p, who: Ask("POST", "/v1/customers", {"email": new_email()})),
}


def with_field(act: str, pointer: str, value: object) -> Callable[[World, Plan, Person], Ask]:
    """The act's request, whose body also has the member that a JSON pointer names; `buy a plan` is a customer's."""

    def ask(world: World, plan: Plan, who: Person) -> Ask:
        if act in CUSTOMER_ACTS:
            whole = CUSTOMER_ACTS[act].ask(world, plan, who.customer_id)
        else:
            whole = PLAN_ACTS[act].ask(world, plan, who)
        body = dict(whole.body)
        inside = body
        *way, last = pointer.lstrip("/").split("/")
        for step in way:
            inside = inside[int(step)] if step.isdigit() else inside[step]
        inside[last] = value
        return Ask(whole.method, whole.path, body, whole.query)

    return ask


PRICE_ACTS: Mapping[str, Callable[[World, Plan, str, str], tuple[Ask, int]]] = {
    "buy": lambda w, p, who, price: (
        Ask("POST", f"/v1/customers/{who}/subscriptions", {"items": [{"price_id": price}]}),
        202,
    ),
    "change to": lambda w, p, who, price: (
        Ask(
            "PATCH",
            f"/v1/subscriptions/{p.subscription_id}",
            {"items": [{"id": p.item_id, "price_id": price}]},
        ),
        200,
    ),
    "add": lambda w, p, who, price: (
        Ask("PATCH", f"/v1/subscriptions/{p.subscription_id}", {"items": [{"price_id": price}]}),
        200,
    ),
    "preview": lambda w, p, who, price: (
        Ask("POST", f"/v1/subscriptions/{p.subscription_id}/preview", {"items": [{"price_id": price}]}),
        200,
    ),
}
"""The ways to name a price, with the status of success."""
