"""The demonstration account: a shared team plan with owner, manager, user and a stranger."""

from .call import Call
from .resources import catalogue, customers, payment_methods, subscriptions
from .server import Engine
from .world import Transaction, World

OWNER, MANAGER, USER, STRANGER = "cus_demoowner", "cus_demomanager", "cus_demouser", "cus_demostranger"
SUBSCRIPTION = "sub_demoteam"


def seed(engine: Engine, world: World) -> bool:
    """Fills an empty account; leaves any other alone."""
    if world.versions_of and any(version.kind != "webhook_endpoint" for version in world.versions):
        return False
    tx = Transaction(world, {"type": "dashboard", "request": None, "idempotency_key": None})
    prices = _catalogue(tx)
    _people(tx)
    for identifier in (OWNER, STRANGER):
        method = payment_methods.attach_to(tx, "pm_card_visa", identifier)
        customers.update_customer(
            Call(tx, {"invoice_settings": {"default_payment_method": method["id"]}}, [identifier])
        )
    subscriptions.create_subscription(
        Call(
            tx,
            {
                "customer": OWNER,
                "items": [
                    {"price": prices["team"], "quantity": 5},
                    {"price": prices["analytics"], "quantity": 1},
                ],
                "metadata": {"billing_shared_subscription_owner": OWNER},
            },
            [SUBSCRIPTION],
        )
    )
    engine.commit(tx)
    return True


def _catalogue(tx: Transaction) -> dict[str, str]:
    team = _product(
        tx,
        "prod_demoteam",
        "Team plan",
        {"billing_supports_shared_subscriptions": "true", "billing_sellable": "true"},
    )
    analytics = _product(tx, "prod_demoanalytics", "Analytics add-on", {"billing_sellable": "true"})
    scale = _product(
        tx,
        "prod_demoscale",
        "Scale plan",
        {"billing_supports_shared_subscriptions": "true", "billing_sellable": "true"},
    )
    month = {"interval": "month"}
    monthly = _price(
        tx,
        team,
        {
            "unit_amount": 1200,
            "recurring": month,
            "nickname": "Team monthly",
            "lookup_key": "team_monthly",
            "currency_options": {"eur": {"unit_amount": 1100}},
        },
    )
    _price(
        tx,
        team,
        {
            "unit_amount": 12000,
            "recurring": {"interval": "year"},
            "nickname": "Team yearly",
            "lookup_key": "team_yearly",
            "currency_options": {"eur": {"unit_amount": 11000}},
        },
    )
    extra = _price(
        tx,
        analytics,
        {
            "unit_amount": 900,
            "recurring": month,
            "nickname": "Analytics monthly",
            "currency_options": {"eur": {"unit_amount": 800}},
        },
    )
    _price(
        tx,
        scale,
        {
            "billing_scheme": "tiered",
            "tiers_mode": "graduated",
            "tiers": [
                {"up_to": 10, "unit_amount": 1000},
                {"up_to": 50, "unit_amount": 800},
                {"up_to": "inf", "unit_amount": 600},
            ],
            "recurring": month,
            "nickname": "Scale monthly",
        },
    )
    return {"team": monthly, "analytics": extra}


def _people(tx: Transaction) -> None:
    member = {"billing_shared_subscription_id": SUBSCRIPTION}
    people = [
        (OWNER, "Olivia Owner", "owner", {}),
        (MANAGER, "Max Manager", "manager", {**member, "billing_shared_subscription_role": "manager"}),
        (USER, "Uma User", "user", {**member, "billing_shared_subscription_role": "user"}),
        (STRANGER, "Sam Stranger", "stranger", {}),
    ]
    for identifier, name, local, marks in people:
        params = {
            "name": name,
            "email": f"{local}@example.com",
            "metadata": {"billing_user_id": f"demo-{local}", **marks},
        }
        customers.create_customer(Call(tx, params, [identifier]))


def _product(tx: Transaction, identifier: str, name: str, marks: dict[str, str]) -> str:
    params = {"id": identifier, "name": name, "metadata": marks}
    return str(catalogue.create_product(Call(tx, params, []))["id"])


def _price(tx: Transaction, product: str, params: dict[str, object]) -> str:
    """The first price of a product becomes its default, which the product puts on sale; any other is marked itself."""
    default = tx.need("product", product, "product")["default_price"]
    marks = {} if default is None else {"metadata": {"billing_sellable": "true"}}
    made = catalogue.create_price(Call(tx, {"product": product, "currency": "usd", **marks, **params}, []))
    if default is None:
        catalogue.update_product(Call(tx, {"default_price": made["id"]}, [product]))
    return str(made["id"])
