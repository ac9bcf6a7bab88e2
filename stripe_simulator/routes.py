"""Which handler and which of the SDK's parameter types answer each method and path."""

from collections.abc import Callable
from typing import NamedTuple

from .call import Call
from .resources import account, catalogue, customers, invoices, payment_methods, subscriptions
from .world import Obj

Handler = Callable[[Call], Obj]


class Route(NamedTuple):
    template: str
    handler: Handler
    params: str | None


_TABLE: list[tuple[str, str, Handler, str | None]] = [
    ("GET", "/v1/account", account.retrieve_account, None),
    ("GET", "/v1/accounts/{id}", account.retrieve_account, None),
    ("POST", "/v1/products", catalogue.create_product, "ProductCreateParams"),
    ("GET", "/v1/products", catalogue.list_products, "ProductListParams"),
    ("GET", "/v1/products/{id}", catalogue.retrieve_product, "ProductRetrieveParams"),
    ("POST", "/v1/products/{id}", catalogue.update_product, "ProductUpdateParams"),
    ("DELETE", "/v1/products/{id}", catalogue.delete_product, "ProductDeleteParams"),
    ("POST", "/v1/prices", catalogue.create_price, "PriceCreateParams"),
    ("GET", "/v1/prices", catalogue.list_prices, "PriceListParams"),
    ("GET", "/v1/prices/{id}", catalogue.retrieve_price, "PriceRetrieveParams"),
    ("POST", "/v1/prices/{id}", catalogue.update_price, "PriceUpdateParams"),
    ("POST", "/v1/customers", customers.create_customer, "CustomerCreateParams"),
    ("GET", "/v1/customers", customers.list_customers, "CustomerListParams"),
    ("GET", "/v1/customers/search", customers.search_customers, "CustomerSearchParams"),
    ("GET", "/v1/customers/{id}", customers.retrieve_customer, "CustomerRetrieveParams"),
    ("POST", "/v1/customers/{id}", customers.update_customer, "CustomerUpdateParams"),
    ("DELETE", "/v1/customers/{id}", customers.delete_customer, "CustomerDeleteParams"),
    (
        "GET",
        "/v1/customers/{id}/payment_methods",
        payment_methods.list_of_customer,
        "CustomerPaymentMethodListParams",
    ),
    (
        "GET",
        "/v1/customers/{id}/payment_methods/{id}",
        payment_methods.retrieve_of_customer,
        "CustomerPaymentMethodRetrieveParams",
    ),
    ("POST", "/v1/payment_methods", payment_methods.create_payment_method, "PaymentMethodCreateParams"),
    ("GET", "/v1/payment_methods", payment_methods.list_payment_methods, "PaymentMethodListParams"),
    ("GET", "/v1/payment_methods/{id}", payment_methods.retrieve_payment_method, "PaymentMethodRetrieveParams"),
    ("POST", "/v1/payment_methods/{id}", payment_methods.update_payment_method, "PaymentMethodUpdateParams"),
    ("POST", "/v1/payment_methods/{id}/attach", payment_methods.attach, "PaymentMethodAttachParams"),
    ("POST", "/v1/payment_methods/{id}/detach", payment_methods.detach, "PaymentMethodDetachParams"),
    ("POST", "/v1/subscriptions", subscriptions.create_subscription, "SubscriptionCreateParams"),
    ("GET", "/v1/subscriptions", subscriptions.list_subscriptions, "SubscriptionListParams"),
    ("GET", "/v1/subscriptions/{id}", subscriptions.retrieve_subscription, "SubscriptionRetrieveParams"),
    ("POST", "/v1/subscriptions/{id}", subscriptions.update_subscription, "SubscriptionUpdateParams"),
    ("DELETE", "/v1/subscriptions/{id}", subscriptions.cancel_subscription, "SubscriptionCancelParams"),
    ("GET", "/v1/subscription_items", subscriptions.list_items, "SubscriptionItemListParams"),
    ("POST", "/v1/subscription_items", subscriptions.create_item, "SubscriptionItemCreateParams"),
    ("GET", "/v1/subscription_items/{id}", subscriptions.retrieve_item, "SubscriptionItemRetrieveParams"),
    ("POST", "/v1/subscription_items/{id}", subscriptions.update_item, "SubscriptionItemUpdateParams"),
    ("DELETE", "/v1/subscription_items/{id}", subscriptions.delete_item, "SubscriptionItemDeleteParams"),
    ("GET", "/v1/invoices", invoices.list_invoices, "InvoiceListParams"),
    ("GET", "/v1/invoices/{id}", invoices.retrieve_invoice, "InvoiceRetrieveParams"),
    ("GET", "/v1/invoices/{id}/lines", invoices.list_lines, "InvoiceLineItemListParams"),
    ("GET", "/v1/events", account.list_events, "EventListParams"),
    ("GET", "/v1/events/{id}", account.retrieve_event, "EventRetrieveParams"),
    ("POST", "/v1/webhook_endpoints", account.create_endpoint, "WebhookEndpointCreateParams"),
    ("GET", "/v1/webhook_endpoints", account.list_endpoints, "WebhookEndpointListParams"),
    ("GET", "/v1/webhook_endpoints/{id}", account.retrieve_endpoint, "WebhookEndpointRetrieveParams"),
    ("POST", "/v1/webhook_endpoints/{id}", account.update_endpoint, "WebhookEndpointUpdateParams"),
    ("DELETE", "/v1/webhook_endpoints/{id}", account.delete_endpoint, "WebhookEndpointDeleteParams"),
]

_EXACT: dict[tuple[str, str], Route] = {}
_SHAPED: dict[tuple[str, int], list[tuple[list[str], Route]]] = {}
for _method, _template, _handler, _params in _TABLE:
    _route = Route(_template, _handler, _params)
    if "{" in _template:
        _parts = _template.split("/")
        _SHAPED.setdefault((_method, len(_parts)), []).append((_parts, _route))
    else:
        _EXACT[(_method, _template)] = _route


def find(method: str, path: str) -> tuple[Route, list[str]] | None:
    """The route of a decoded path and the ids in it. An empty id does not match."""
    exact = _EXACT.get((method, path))
    if exact is not None:
        return exact, []
    given = path.split("/")
    for parts, route in _SHAPED.get((method, len(given)), ()):
        ids = []
        for part, value in zip(parts, given, strict=True):
            if part == "{id}":
                if not value:
                    break
                ids.append(value)
            elif part != value:
                break
        else:
            return route, ids
    return None
