"""A snapshot of each kind with every field set, for tests of what stores them."""

import dataclasses
from typing import TypeVar

from app.domain.ids import (
    CustomerId,
    InvoiceId,
    PaymentMethodId,
    PriceId,
    ProductId,
    SubscriptionId,
    SubscriptionItemId,
)
from app.domain.snapshots import (
    Customer,
    Invoice,
    PaymentMethod,
    Price,
    Product,
    Snapshot,
    Subscription,
    SubscriptionItem,
)

AnySnapshot = TypeVar("AnySnapshot", bound=Snapshot)

PRODUCT = Product(
    id=ProductId("prod_1"),
    created=100,
    active=True,
    name="Team",
    description="For teams",
    images=["https://example.com/a.png"],
    unit_label="seat",
    default_price_id="price_1",
    supports_sharing=True,
    owner_uses_seat=False,
    sellable=True,
)
PRICE = Price(
    id=PriceId("price_1"),
    created=100,
    product_id=ProductId("prod_1"),
    active=True,
    currency="usd",
    type="recurring",
    billing_scheme="tiered",
    unit_amount=1000,
    unit_amount_decimal="1000",
    recurring={"interval": "month", "interval_count": 1, "usage_type": "licensed", "meter": None},
    tiers_mode="volume",
    tiers=[{"up_to": None, "unit_amount": 2**62}],
    transform_quantity={"divide_by": 5, "round": "up"},
    currency_options={"eur": {"unit_amount": 900}},
    tax_behavior="inclusive",
    lookup_key="team",
    nickname="Team, monthly",
    sellable=True,
)
CUSTOMER = Customer(
    id=CustomerId("cus_1"),
    created=100,
    email="ada@example.com",
    name="Ada",
    phone="1",
    currency="usd",
    balance=-500,
    default_payment_method_id="pm_1",
    default_source_id="card_1",
    member_of=SubscriptionId("sub_1"),
    member_role="user",
    user_id="user-1",
    operation_id="op_1",
    metadata_problems={"key": "is odd"},
    further_memberships={"sub_2": "manager"},
)
SUBSCRIPTION = Subscription(
    id=SubscriptionId("sub_1"),
    created=100,
    customer_id=CustomerId("cus_1"),
    status="active",
    currency="usd",
    items=[
        SubscriptionItem(
            SubscriptionItemId("si_1"), PriceId("price_1"), ProductId("prod_1"), 5, False, 100, 200
        ),
        SubscriptionItem(
            SubscriptionItemId("si_2"), PriceId("price_2"), ProductId("prod_1"), None, True, None, None
        ),
    ],
    owner_id=CustomerId("cus_1"),
    operation_id="op_1",
    cancel_at=900,
    cancel_at_period_end=True,
    canceled_at=800,
    ended_at=901,
    trial_start=100,
    trial_end=150,
    start_date=100,
    billing_cycle_anchor=100,
    billing_mode="flexible",
    collection_method="charge_automatically",
    default_payment_method_id="pm_1",
    default_source_id="card_1",
    latest_invoice_id="in_1",
    pending_update={"expires_at": 5, "trial_end": None},
    discounts=["di_1"],
    metadata_problems={"key": "is odd"},
    pause_collection={"behavior": "void", "resumes_at": 950},
    schedule_id="sub_sched_1",
    discount_details=[{"id": "di_1", "promotion_code": "SPRING", "percent_off": 12.5}],
)
PAYMENT_METHOD = PaymentMethod(
    id=PaymentMethodId("pm_1"),
    created=100,
    customer_id=CustomerId("cus_1"),
    type="card",
    card={"brand": "visa"},
)
INVOICE = Invoice(
    id=InvoiceId("in_1"),
    created=100,
    customer_id=CustomerId("cus_1"),
    subscription_id=SubscriptionId("sub_1"),
    number="A-1",
    status="paid",
    currency="usd",
    subtotal=1000,
    total=1200,
    amount_due=1200,
    amount_paid=1100,
    amount_remaining=100,
    billing_reason="subscription_cycle",
    hosted_invoice_url="https://example.com/in_1",
    invoice_pdf="https://example.com/in_1.pdf",
    period_start=100,
    period_end=200,
    due_date=300,
    lines=[{"amount": 1000, "description": "5 × Team"}],
)
EVERY_KIND: list[Snapshot] = [PRODUCT, PRICE, CUSTOMER, SUBSCRIPTION, PAYMENT_METHOD, INVOICE]


def like(snapshot: AnySnapshot, **changed: object) -> AnySnapshot:
    return dataclasses.replace(snapshot, **changed)  # type: ignore[arg-type]
