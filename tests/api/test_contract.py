"""The interface that outside callers rely on, written down by hand, against what the service answers.

A method that gets built must be marked so here; one that is built and not named here is a surprise to somebody.
"""

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from app.main import create_app
from app.settings import load_settings

NOT_BUILT = "not built yet"

# Billing.js's method set, whose names are the operation ids.
DOCUMENTED = {
    "getProducts": ("GET", "/v1/products", ""),
    "getCustomerSubscriptions": ("GET", "/v1/customers/{customer_id}/subscriptions", ""),
    "getCustomerPaymentMethods": ("GET", "/v1/customers/{customer_id}/payment-methods", ""),
    "getCustomerInvoices": ("GET", "/v1/customers/{customer_id}/invoices", ""),
    "addSubscription": ("POST", "/v1/customers/{customer_id}/subscriptions", ""),
    "updateSubscription": ("PATCH", "/v1/subscriptions/{subscription_id}", ""),
    "cancelSubscription": ("POST", "/v1/subscriptions/{subscription_id}/cancel", ""),
    "attachPaymentMethodToCustomer": (
        "POST",
        "/v1/customers/{customer_id}/payment-methods",
        "",
    ),
    "detachPaymentMethodFromCustomer": (
        "DELETE",
        "/v1/customers/{customer_id}/payment-methods/{payment_method_id}",
        "",
    ),
    "setPaymentMethodAsDefault": (
        "PUT",
        "/v1/customers/{customer_id}/default-payment-method",
        "",
    ),
    "getSharedSubscription": ("GET", "/v1/shared-subscriptions/{subscription_id}", ""),
    "getSharedSubscriptionUsers": ("GET", "/v1/shared-subscriptions/{subscription_id}/users", ""),
    "updateSharedSubscriptionUsers": ("PATCH", "/v1/shared-subscriptions/{subscription_id}/users", ""),
}

# Beyond that set the routes are promised, their names are ours.
BEYOND = {
    ("GET", "/v1/subscriptions/{subscription_id}"): "",
    ("GET", "/v1/invoices/{invoice_id}"): "",
    ("POST", "/v1/subscriptions/{subscription_id}/resume"): "",
    ("POST", "/v1/subscriptions/{subscription_id}/preview"): "",
    ("POST", "/v1/shared-subscriptions/{subscription_id}/quote"): "",
    ("PUT", "/v1/shared-subscriptions/{subscription_id}/seats"): "",
    ("DELETE", "/v1/shared-subscriptions/{subscription_id}/users/me"): "",
    ("GET", "/v1/shared-subscriptions/{subscription_id}/transfer"): "",
    ("POST", "/v1/shared-subscriptions/{subscription_id}/transfer"): "",
    ("POST", "/v1/shared-subscriptions/{subscription_id}/transfer/accept"): "",
    ("GET", "/v1/shared-subscriptions/{subscription_id}/invitations"): "",
    ("POST", "/v1/shared-subscriptions/{subscription_id}/invitations"): "",
    ("POST", "/v1/shared-subscriptions/{subscription_id}/invitations/{invitation_id}/resend"): "",
    ("DELETE", "/v1/shared-subscriptions/{subscription_id}/invitations/{invitation_id}"): "",
    ("POST", "/v1/invitations/lookup"): "",
    ("POST", "/v1/invitations/accept"): "",
    ("POST", "/v1/invitations/decline"): "",
    ("POST", "/v1/shared-subscriptions/{subscription_id}/transfer/decline"): "",
    ("GET", "/v1/shared-subscriptions/{subscription_id}/audit-events"): "",
    ("PUT", "/v1/shared-subscriptions/{subscription_id}/purchase-permission"): "",
    ("DELETE", "/v1/shared-subscriptions/{subscription_id}/purchase-permission"): "",
    ("GET", "/v1/events"): "",
    ("GET", "/v1/events/snapshot"): "",
    ("GET", "/v1/shared-subscriptions/{subscription_id}/events"): "",
    ("POST", "/v1/webhook-endpoints"): "",
    ("GET", "/v1/webhook-endpoints"): "",
    ("GET", "/v1/webhook-endpoints/{endpoint_id}"): "",
    ("PATCH", "/v1/webhook-endpoints/{endpoint_id}"): "",
    ("DELETE", "/v1/webhook-endpoints/{endpoint_id}"): "",
    ("POST", "/v1/webhook-endpoints/{endpoint_id}/rotate-secret"): "",
    ("POST", "/v1/webhook-endpoints/{endpoint_id}/test"): "",
    ("GET", "/v1/webhook-endpoints/{endpoint_id}/deliveries"): "",
    ("POST", "/v1/webhook-endpoints/{endpoint_id}/deliveries/{delivery_id}/redeliver"): "",
    ("GET", "/v1/operations/{operation_id}"): "",
    ("POST", "/v1/operations/{operation_id}/cancel"): "",
    ("GET", "/v1/customers/{customer_id}/access"): "",
    ("POST", "/v1/customers"): "",
    ("DELETE", "/v1/customers/{customer_id}/link"): "",
    ("GET", "/v1/customers/{customer_id}"): "",
    ("PATCH", "/v1/customers/{customer_id}"): "",
    ("POST", "/v1/customers/{customer_id}/setup-intents"): "",
    ("GET", "/v1/promotion-codes/{code}"): "",
    ("GET", "/v1/customers/{customer_id}/upcoming-invoice"): "",
}

MACHINES = {("POST", "/webhooks/stripe"), ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics")}
DOCUMENTATION = {"/docs", "/docs/{name}", "/openapi.json"}


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(load_settings({}, process="openapi"))


@pytest.fixture(scope="module")
def operations(app: FastAPI) -> dict[tuple[str, str], str]:
    """Method and path of what the OpenAPI document states, to its operation id."""
    return {
        (method.upper(), path): stated["operationId"]
        for path, methods in app.openapi()["paths"].items()
        for method, stated in methods.items()
    }


def test_every_documented_method_has_its_name_and_route(operations: dict[tuple[str, str], str]) -> None:
    built = {name: route for route, name in operations.items()}
    promised = {
        name: (method, path) for name, (method, path, mark) in DOCUMENTED.items() if mark != NOT_BUILT
    }
    assert {name: built.get(name) for name in promised} == promised
    early = {
        name
        for name, (method, path, mark) in DOCUMENTED.items()
        if mark == NOT_BUILT and (name in built or (method, path) in operations)
    }
    assert early == set(), "built by now: take the mark away"


def test_every_other_route_is_where_it_was_promised(operations: dict[tuple[str, str], str]) -> None:
    missing = {route for route, mark in BEYOND.items() if mark != NOT_BUILT} - operations.keys()
    assert missing == set()
    early = {route for route, mark in BEYOND.items() if mark == NOT_BUILT} & operations.keys()
    assert early == set(), "built by now: take the mark away"


def test_the_service_answers_nothing_that_is_not_in_the_tables(app: FastAPI) -> None:
    promised = {(method, path) for method, path, _ in DOCUMENTED.values()} | set(BEYOND) | MACHINES
    answered = set()
    for context in iter_route_contexts(app.routes):
        assert isinstance(context.path, str) and context.methods
        if context.path not in DOCUMENTATION:
            answered |= {(method, context.path) for method in context.methods}
    assert answered - promised == set()
    assert answered >= MACHINES


def test_operation_ids_are_functions_in_camel_case(operations: dict[tuple[str, str], str]) -> None:
    assert len(set(operations.values())) == len(operations)
    assert all(name.isalnum() and name[0].islower() for name in operations.values())
