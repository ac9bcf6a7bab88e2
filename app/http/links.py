"""OpenAPI links: which value of an answer names the object of another operation (OpenAPI 3.1, Link Object)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI


@dataclass(frozen=True, slots=True)
class Link:
    """From every success of `source` to `target`; `parameters` and `body` are runtime expressions by name."""

    source: str
    target: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None


def _customer(pointer: str) -> dict[str, str]:
    return {"customer_id": f"$response.body#{pointer}"}


def _subscription(pointer: str) -> dict[str, str]:
    return {"subscription_id": f"$response.body#{pointer}"}


def _to_each(source: str, parameters: Mapping[str, str], *targets: str) -> list[Link]:
    return [Link(source, target, parameters) for target in targets]


_SAME_CUSTOMER = {"customer_id": "$request.path.customer_id"}
_SAME_SUBSCRIPTION = {"subscription_id": "$request.path.subscription_id"}
_OPERATION = {"operation_id": "$response.body#/operation_id"}
_QUOTED = {"quote_id": "$response.body#/quote_id"}

_ACCEPTED = "202"

_ON_A_CUSTOMER = (
    "getCustomer",
    "updateCustomer",
    "getCustomerSubscriptions",
    "getCustomerPaymentMethods",
    "addSubscription",
    "createSetupIntent",
)
_ON_A_SUBSCRIPTION = ("getSubscription", "updateSubscription", "cancelSubscription", "previewSubscription")
_ON_A_PLAN = ("getSharedSubscription", "getSharedSubscriptionUsers", "updateSharedSubscriptionUsers")

LINKS: tuple[Link, ...] = (
    *_to_each("createCustomer", _customer("/customer/id"), *_ON_A_CUSTOMER),
    *_to_each("getCustomer", _customer("/customer/id"), "getCustomerInvoices", "getUpcomingInvoice"),
    Link(
        "getProducts",
        "addSubscription",
        body={"items": [{"price_id": "$response.body#/data/0/prices/0/id"}]},
    ),
    Link("getProducts", "getAccess", {"product_id": "$response.body#/data/0/id"}),
    # What was bought, changed or listed, and what can be done with it.
    *_to_each("addSubscription", _subscription("/subscription/id"), *_ON_A_SUBSCRIPTION),
    *_to_each("addSubscription", _subscription("/subscription/id"), *_ON_A_PLAN, "setSeats", "quoteSeats"),
    Link(
        "addSubscription",
        "getCustomerInvoices",
        {**_SAME_CUSTOMER, **_subscription("/subscription/id")},
    ),
    *_to_each("getCustomerSubscriptions", _subscription("/data/0/id"), *_ON_A_SUBSCRIPTION),
    *_to_each("getCustomerSubscriptions", _subscription("/data/0/id"), *_ON_A_PLAN, "getAuditEvents"),
    *_to_each("updateSubscription", _SAME_SUBSCRIPTION, "getSubscription", "resumeSubscription"),
    *_to_each("cancelSubscription", _SAME_SUBSCRIPTION, "getSubscription", "resumeSubscription"),
    *_to_each("resumeSubscription", _SAME_SUBSCRIPTION, "getSubscription", "cancelSubscription"),
    # A quote is executed by the change that it priced.
    Link("previewSubscription", "updateSubscription", _SAME_SUBSCRIPTION, _QUOTED),
    Link("quoteSeats", "setSeats", _SAME_SUBSCRIPTION, {"total": "$request.body#/total", **_QUOTED}),
    Link(
        "quoteSeats",
        "updateSharedSubscriptionUsers",
        _SAME_SUBSCRIPTION,
        {"add": "$request.body#/add", "over_capacity": "add_seats", **_QUOTED},
    ),
    *_to_each("setSeats", _SAME_SUBSCRIPTION, "getSharedSubscription", "updateSharedSubscriptionUsers"),
    # Payment methods and invoices.
    Link(
        "getCustomerPaymentMethods",
        "setPaymentMethodAsDefault",
        _SAME_CUSTOMER,
        {"payment_method_id": "$response.body#/data/0/id"},
    ),
    Link(
        "getCustomerPaymentMethods",
        "detachPaymentMethodFromCustomer",
        {**_SAME_CUSTOMER, "payment_method_id": "$response.body#/data/0/id"},
    ),
    Link(
        "attachPaymentMethodToCustomer",
        "setPaymentMethodAsDefault",
        _SAME_CUSTOMER,
        {"payment_method_id": "$response.body#/payment_method/id"},
    ),
    Link(
        "attachPaymentMethodToCustomer",
        "detachPaymentMethodFromCustomer",
        {**_SAME_CUSTOMER, "payment_method_id": "$response.body#/payment_method/id"},
    ),
    Link("getCustomerInvoices", "getInvoice", {"invoice_id": "$response.body#/data/0/id"}),
    Link("getInvoice", "getSubscription", _subscription("/invoice/subscription_id")),
    # The people of a plan. The owner's row is the first, so the second is a member's.
    *_to_each("getSharedSubscription", _SAME_SUBSCRIPTION, "getSharedSubscriptionUsers", "setSeats"),
    Link(
        "getSharedSubscriptionUsers",
        "updateSharedSubscriptionUsers",
        _SAME_SUBSCRIPTION,
        {"remove": ["$response.body#/data/1/customer_id"]},
    ),
    Link(
        "getSharedSubscriptionUsers",
        "offerTransfer",
        _SAME_SUBSCRIPTION,
        {"to_customer_id": "$response.body#/data/1/customer_id"},
    ),
    *_to_each("updateSharedSubscriptionUsers", _SAME_SUBSCRIPTION, "getSharedSubscriptionUsers"),
    # Operations.
    *(
        Link(source, "getOperation", _OPERATION)
        for source in ("updateSharedSubscriptionUsers", "leaveSharedSubscription", "acceptTransfer")
    ),
    Link("getAuditEvents", "getOperation", {"operation_id": "$response.body#/data/0/operation_id"}),
    *_to_each("offerTransfer", _SAME_SUBSCRIPTION, "getTransfer", "acceptTransfer", "declineTransfer"),
    *_to_each("getTransfer", _SAME_SUBSCRIPTION, "acceptTransfer", "declineTransfer"),
)


def install(app: FastAPI) -> None:
    """The document that the app states of itself carries the links from here on."""
    generate: Callable[[], dict[str, Any]] = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        add_to(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def add_to(document: dict[str, Any]) -> None:
    """Links of a source stand in each of its successes that has a body. KeyError for an operation that is none.

    What was accepted and is not finished has nothing to show yet but its operation.
    """
    operations = {
        operation["operationId"]: operation
        for methods in document["paths"].values()
        for operation in methods.values()
    }
    for link in LINKS:
        for status, response in operations[link.source]["responses"].items():
            if status.startswith("2") and status != _ACCEPTED and "content" in response:
                _add(response, operations[link.target], link)
    for source, operation in operations.items():
        if _ACCEPTED in operation["responses"]:
            link = Link(source, "getOperation", _OPERATION)
            _add(operation["responses"][_ACCEPTED], operations[link.target], link)


def _add(response: dict[str, Any], target: dict[str, Any], link: Link) -> None:
    stated: dict[str, Any] = {"operationId": target["operationId"]}
    if link.parameters:
        stated["parameters"] = dict(link.parameters)
    if link.body is not None:
        stated["requestBody"] = dict(link.body)
    response.setdefault("links", {})[link.target] = stated
