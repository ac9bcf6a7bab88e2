"""OpenAPI links: which value of an answer is a parameter of another operation.

Source: https://spec.openapis.org/oas/v3.1.0#link-object
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Link:
    """A link from every success of the operation `source` to the operation `target`.

    `parameters` and `body` map names to runtime expressions, such as `$response.body#/id`.
    """

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
_ON_A_SHARED_SUBSCRIPTION = (
    "getSharedSubscription",
    "getSharedSubscriptionUsers",
    "updateSharedSubscriptionUsers",
)

LINKS: tuple[Link, ...] = (
    *_to_each("createCustomer", _customer("/customer/id"), *_ON_A_CUSTOMER),
    *_to_each("getCustomer", _customer("/customer/id"), "getCustomerInvoices", "getUpcomingInvoice"),
    Link(
        "getProducts",
        "addSubscription",
        body={"items": [{"price_id": "$response.body#/data/0/prices/0/id"}]},
    ),
    Link("getProducts", "getAccess", {"product_id": "$response.body#/data/0/id"}),
    # From a purchase, a change or a list to the operations on that subscription.
    *_to_each("addSubscription", _subscription("/subscription/id"), *_ON_A_SUBSCRIPTION),
    *_to_each("addSubscription", _subscription("/subscription/id"), *_ON_A_SHARED_SUBSCRIPTION),
    *_to_each("addSubscription", _subscription("/subscription/id"), "setSeats", "quoteSeats"),
    Link(
        "addSubscription",
        "getCustomerInvoices",
        {**_SAME_CUSTOMER, **_subscription("/subscription/id")},
    ),
    *_to_each("getCustomerSubscriptions", _subscription("/data/0/id"), *_ON_A_SUBSCRIPTION),
    *_to_each("getCustomerSubscriptions", _subscription("/data/0/id"), *_ON_A_SHARED_SUBSCRIPTION),
    *_to_each("getCustomerSubscriptions", _subscription("/data/0/id"), "getAuditEvents"),
    *_to_each("updateSubscription", _SAME_SUBSCRIPTION, "getSubscription", "resumeSubscription"),
    *_to_each("cancelSubscription", _SAME_SUBSCRIPTION, "getSubscription", "resumeSubscription"),
    *_to_each("resumeSubscription", _SAME_SUBSCRIPTION, "getSubscription", "cancelSubscription"),
    # A quote goes to the change that it priced.
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
    # Members of a shared subscription. The first row is the owner, so the second is a member.
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


def add_to(document: dict[str, Any]) -> None:
    """Add each link to every success of its source that has a body.

    A 202 only links to `getOperation`, because the change itself is not finished.

    Raises:
        KeyError: A link names an operation that the document does not have.
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
        if "content" in operation["responses"].get(_ACCEPTED, {}):
            link = Link(source, "getOperation", _OPERATION)
            _add(operation["responses"][_ACCEPTED], operations[link.target], link)


def _add(response: dict[str, Any], target: dict[str, Any], link: Link) -> None:
    stated: dict[str, Any] = {"operationId": target["operationId"]}
    if link.parameters:
        stated["parameters"] = dict(link.parameters)
    if link.body is not None:
        stated["requestBody"] = dict(link.body)
    response.setdefault("links", {})[link.target] = stated
