"""Which handler and which of the SDK's parameter types answer each method and path."""

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote

from .call import Call
from .objects import Obj
from .resources import (
    account,
    balances,
    catalogue,
    charges,
    coupons,
    credit_notes,
    customers,
    intents,
    invoice_items,
    invoices,
    meters,
    payment_methods,
    refunds,
    schedules,
    sources,
    subscription_items,
    subscription_pauses,
    subscriptions,
    tax_ids,
)

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
    ("POST", "/v1/customers/{id}/tax_ids", tax_ids.create_tax_id, "CustomerTaxIdCreateParams"),
    ("GET", "/v1/customers/{id}/tax_ids", tax_ids.list_tax_ids, "CustomerTaxIdListParams"),
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
    (
        "GET",
        "/v1/payment_methods/{id}",
        payment_methods.retrieve_payment_method,
        "PaymentMethodRetrieveParams",
    ),
    ("POST", "/v1/payment_methods/{id}", payment_methods.update_payment_method, "PaymentMethodUpdateParams"),
    ("POST", "/v1/payment_methods/{id}/attach", payment_methods.attach, "PaymentMethodAttachParams"),
    ("POST", "/v1/payment_methods/{id}/detach", payment_methods.detach, "PaymentMethodDetachParams"),
    ("POST", "/v1/subscriptions", subscriptions.create_subscription, "SubscriptionCreateParams"),
    ("GET", "/v1/subscriptions", subscriptions.list_subscriptions, "SubscriptionListParams"),
    ("GET", "/v1/subscriptions/search", subscriptions.search_subscriptions, "SubscriptionSearchParams"),
    ("GET", "/v1/subscriptions/{id}", subscriptions.retrieve_subscription, "SubscriptionRetrieveParams"),
    ("POST", "/v1/subscriptions/{id}", subscriptions.update_subscription, "SubscriptionUpdateParams"),
    ("DELETE", "/v1/subscriptions/{id}", subscriptions.cancel_subscription, "SubscriptionCancelParams"),
    (
        "POST",
        "/v1/subscriptions/{id}/resume",
        subscription_pauses.resume_subscription,
        "SubscriptionResumeParams",
    ),
    (
        "POST",
        "/v1/subscriptions/{id}/pause",
        subscription_pauses.pause_subscription,
        "SubscriptionPauseParams",
    ),
    (
        "POST",
        "/v1/subscriptions/{id}/migrate",
        subscription_pauses.migrate_subscription,
        "SubscriptionMigrateParams",
    ),
    (
        "DELETE",
        "/v1/subscriptions/{id}/discount",
        subscriptions.delete_discount,
        "SubscriptionDeleteDiscountParams",
    ),
    ("GET", "/v1/subscription_items", subscription_items.list_items, "SubscriptionItemListParams"),
    ("POST", "/v1/subscription_items", subscription_items.create_item, "SubscriptionItemCreateParams"),
    (
        "GET",
        "/v1/subscription_items/{id}",
        subscription_items.retrieve_item,
        "SubscriptionItemRetrieveParams",
    ),
    ("POST", "/v1/subscription_items/{id}", subscription_items.update_item, "SubscriptionItemUpdateParams"),
    ("DELETE", "/v1/subscription_items/{id}", subscription_items.delete_item, "SubscriptionItemDeleteParams"),
    ("GET", "/v1/invoices", invoices.list_invoices, "InvoiceListParams"),
    ("GET", "/v1/invoices/{id}", invoices.retrieve_invoice, "InvoiceRetrieveParams"),
    ("GET", "/v1/invoices/{id}/lines", invoices.list_lines, "InvoiceLineItemListParams"),
    ("POST", "/v1/invoices/create_preview", invoices.create_preview, "InvoiceCreatePreviewParams"),
    ("POST", "/v1/invoices/{id}", invoices.update_invoice, "InvoiceUpdateParams"),
    ("DELETE", "/v1/invoices/{id}", invoices.delete_invoice, "InvoiceDeleteParams"),
    ("POST", "/v1/invoices/{id}/finalize", invoices.finalize_invoice, "InvoiceFinalizeInvoiceParams"),
    ("POST", "/v1/invoices/{id}/pay", invoices.pay_invoice, "InvoicePayParams"),
    ("POST", "/v1/invoices/{id}/void", invoices.void_invoice, "InvoiceVoidInvoiceParams"),
    (
        "POST",
        "/v1/invoices/{id}/mark_uncollectible",
        invoices.mark_uncollectible,
        "InvoiceMarkUncollectibleParams",
    ),
    ("GET", "/v1/invoice_payments", invoices.list_payments, "InvoicePaymentListParams"),
    ("GET", "/v1/invoice_payments/{id}", invoices.retrieve_payment, "InvoicePaymentRetrieveParams"),
    ("POST", "/v1/invoiceitems", invoice_items.create_invoice_item, "InvoiceItemCreateParams"),
    ("POST", "/v1/invoiceitems/{id}", invoice_items.update_invoice_item, "InvoiceItemUpdateParams"),
    ("GET", "/v1/invoiceitems", invoice_items.list_invoice_items, "InvoiceItemListParams"),
    ("GET", "/v1/invoiceitems/{id}", invoice_items.retrieve_invoice_item, "InvoiceItemRetrieveParams"),
    ("DELETE", "/v1/invoiceitems/{id}", invoice_items.delete_invoice_item, "InvoiceItemDeleteParams"),
    ("POST", "/v1/coupons", coupons.create_coupon, "CouponCreateParams"),
    ("GET", "/v1/coupons", coupons.list_coupons, "CouponListParams"),
    ("GET", "/v1/coupons/{id}", coupons.retrieve_coupon, "CouponRetrieveParams"),
    ("POST", "/v1/coupons/{id}", coupons.update_coupon, "CouponUpdateParams"),
    ("DELETE", "/v1/coupons/{id}", coupons.delete_coupon, "CouponDeleteParams"),
    ("POST", "/v1/promotion_codes", coupons.create_promotion_code, "PromotionCodeCreateParams"),
    ("GET", "/v1/promotion_codes", coupons.list_promotion_codes, "PromotionCodeListParams"),
    ("GET", "/v1/promotion_codes/{id}", coupons.retrieve_promotion_code, "PromotionCodeRetrieveParams"),
    ("POST", "/v1/promotion_codes/{id}", coupons.update_promotion_code, "PromotionCodeUpdateParams"),
    ("POST", "/v1/tax_rates", coupons.create_tax_rate, "TaxRateCreateParams"),
    ("GET", "/v1/tax_rates", coupons.list_tax_rates, "TaxRateListParams"),
    ("GET", "/v1/tax_rates/{id}", coupons.retrieve_tax_rate, "TaxRateRetrieveParams"),
    ("POST", "/v1/tax_rates/{id}", coupons.update_tax_rate, "TaxRateUpdateParams"),
    ("GET", "/v1/payment_intents", intents.list_payment_intents, "PaymentIntentListParams"),
    ("GET", "/v1/payment_intents/{id}", intents.retrieve_payment_intent, "PaymentIntentRetrieveParams"),
    ("POST", "/v1/setup_intents", intents.create_setup_intent, "SetupIntentCreateParams"),
    ("GET", "/v1/charges", charges.list_charges, "ChargeListParams"),
    ("GET", "/v1/charges/{id}", charges.retrieve_charge, "ChargeRetrieveParams"),
    ("POST", "/v1/refunds", refunds.create_refund, "RefundCreateParams"),
    ("GET", "/v1/refunds", refunds.list_refunds, "RefundListParams"),
    ("GET", "/v1/refunds/{id}", refunds.retrieve_refund, "RefundRetrieveParams"),
    ("GET", "/v1/disputes", refunds.list_disputes, "DisputeListParams"),
    ("GET", "/v1/disputes/{id}", refunds.retrieve_dispute, "DisputeRetrieveParams"),
    ("POST", "/v1/disputes/{id}/close", refunds.close_dispute, "DisputeCloseParams"),
    ("POST", "/v1/credit_notes", credit_notes.create_credit_note, "CreditNoteCreateParams"),
    ("GET", "/v1/credit_notes", credit_notes.list_credit_notes, "CreditNoteListParams"),
    ("GET", "/v1/credit_notes/{id}", credit_notes.retrieve_credit_note, "CreditNoteRetrieveParams"),
    (
        "GET",
        "/v1/credit_notes/{id}/lines",
        credit_notes.list_credit_note_lines,
        "CreditNoteLineItemListParams",
    ),
    ("POST", "/v1/credit_notes/{id}/void", credit_notes.void_credit_note, "CreditNoteVoidCreditNoteParams"),
    (
        "POST",
        "/v1/customers/{id}/balance_transactions",
        balances.create_balance_transaction,
        "CustomerBalanceTransactionCreateParams",
    ),
    (
        "GET",
        "/v1/customers/{id}/balance_transactions",
        balances.list_balance_transactions,
        "CustomerBalanceTransactionListParams",
    ),
    ("POST", "/v1/customers/{id}/sources", sources.create_source, "CustomerPaymentSourceCreateParams"),
    ("GET", "/v1/customers/{id}/sources", sources.list_sources, "CustomerPaymentSourceListParams"),
    (
        "GET",
        "/v1/customers/{id}/sources/{id}",
        sources.retrieve_source,
        "CustomerPaymentSourceRetrieveParams",
    ),
    ("DELETE", "/v1/customers/{id}/sources/{id}", sources.delete_source, "CustomerPaymentSourceDeleteParams"),
    (
        "POST",
        "/v1/subscription_schedules",
        schedules.create_schedule,
        "SubscriptionScheduleCreateParams",
    ),
    ("GET", "/v1/subscription_schedules", schedules.list_schedules, "SubscriptionScheduleListParams"),
    (
        "GET",
        "/v1/subscription_schedules/{id}",
        schedules.retrieve_schedule,
        "SubscriptionScheduleRetrieveParams",
    ),
    (
        "POST",
        "/v1/subscription_schedules/{id}",
        schedules.update_schedule,
        "SubscriptionScheduleUpdateParams",
    ),
    (
        "POST",
        "/v1/subscription_schedules/{id}/release",
        schedules.release_schedule,
        "SubscriptionScheduleReleaseParams",
    ),
    (
        "POST",
        "/v1/subscription_schedules/{id}/cancel",
        schedules.cancel_schedule,
        "SubscriptionScheduleCancelParams",
    ),
    ("GET", "/v1/setup_intents", intents.list_setup_intents, "SetupIntentListParams"),
    ("GET", "/v1/setup_intents/{id}", intents.retrieve_setup_intent, "SetupIntentRetrieveParams"),
    ("POST", "/v1/setup_intents/{id}", intents.update_setup_intent, "SetupIntentUpdateParams"),
    ("POST", "/v1/setup_intents/{id}/confirm", intents.confirm_setup_intent, "SetupIntentConfirmParams"),
    ("POST", "/v1/setup_intents/{id}/cancel", intents.cancel_setup_intent, "SetupIntentCancelParams"),
    ("POST", "/v1/billing/meters", meters.create_meter, "billing.MeterCreateParams"),
    ("GET", "/v1/billing/meters", meters.list_meters, "billing.MeterListParams"),
    ("GET", "/v1/billing/meters/{id}", meters.retrieve_meter, "billing.MeterRetrieveParams"),
    ("POST", "/v1/billing/meters/{id}", meters.update_meter, "billing.MeterUpdateParams"),
    ("POST", "/v1/billing/meters/{id}/deactivate", meters.deactivate_meter, "billing.MeterDeactivateParams"),
    ("POST", "/v1/billing/meters/{id}/reactivate", meters.reactivate_meter, "billing.MeterReactivateParams"),
    (
        "GET",
        "/v1/billing/meters/{id}/event_summaries",
        meters.list_summaries,
        "billing.MeterListEventSummariesParams",
    ),
    ("POST", "/v1/billing/meter_events", meters.create_meter_event, "billing.MeterEventCreateParams"),
    (
        "POST",
        "/v1/billing/meter_event_adjustments",
        meters.create_adjustment,
        "billing.MeterEventAdjustmentCreateParams",
    ),
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
                ids.append(unquote(value))
            elif part != value:
                break
        else:
            return route, ids
    return None
