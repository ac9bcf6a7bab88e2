"""The customer's balance and the transactions that change it; below 0 is credit, above 0 a debt, minor units."""

from typing import Any

from ..call import Call, metadata, text, update
from ..errors import invalid
from ..listing import page
from ..objects import Obj
from ..wire import wire
from ..world import Transaction


def record(tx: Transaction, customer: Obj, amount: int, ending: int, kind: str, **details: Any) -> Obj:
    """Store the transaction of a change that the caller makes to the customer."""
    return tx.store(
        "customer_balance_transaction",
        {
            "id": tx.new_id("cbtxn_"),
            "object": "customer_balance_transaction",
            "amount": amount,
            "checkout_session": None,
            "created": tx.now,
            "credit_note": None,
            "currency": customer["currency"],
            "customer": customer["id"],
            "customer_account": None,
            "description": None,
            "ending_balance": ending,
            "invoice": None,
            "livemode": False,
            "metadata": {},
            "type": kind,
            **details,
        },
    )


def balance_in(customer: Obj, currency: str) -> int:
    """The balance that an invoice in the currency starts from."""
    if customer["currency"] in (None, currency):
        return int(customer["balance"])
    return int((customer.get("_balances") or {}).get(currency, 0))


def with_balance(customer: Obj, currency: str, balance: int) -> Obj:
    """The customer after an invoice in the currency: the currency is theirs now, other balances are kept apart."""
    new = {**customer, "balance": balance, "currency": currency}
    if customer["currency"] not in (None, currency):
        others = {**(customer.get("_balances") or {}), customer["currency"]: customer["balance"]}
        others.pop(currency, None)
        new["_balances"] = others
    return new


def adjust(
    tx: Transaction, customer: Obj, amount: int, kind: str, *, currency: str | None = None, **details: Any
) -> Obj:
    """Change the balance in a currency by ``amount`` and return the transaction."""
    wanted = (currency or customer["currency"] or "usd").lower()
    ending = balance_in(customer, wanted) + amount
    if customer["currency"] in (None, wanted):
        new = with_balance(customer, wanted, ending)
    else:
        new = {**customer, "_balances": {**(customer.get("_balances") or {}), wanted: ending}}
    made = record(tx, customer, amount, ending, kind, currency=wanted, **details)
    update(tx, customer, new, "customer.updated")
    return made


def create_balance_transaction(call: Call) -> Obj:
    tx, params = call.tx, call.params
    customer = tx.need("customer", call.id, "customer")
    if not params["amount"]:
        raise invalid("Invalid amount: must not be 0.", "amount", "parameter_invalid_integer")
    made = adjust(
        tx,
        customer,
        params["amount"],
        "adjustment",
        currency=params["currency"],
        description=text(params.get("description")),
        metadata=metadata({}, params.get("metadata")),
    )
    return wire(tx, made)


def list_balance_transactions(call: Call) -> Obj:
    tx = call.tx
    tx.need("customer", call.id, "customer")
    among = tx.world.collection("customer_balance_transaction").find("customer", call.id)
    url = f"/v1/customers/{call.id}/balance_transactions"

    def match(made: Obj) -> bool:
        return "invoice" not in call.params or made["invoice"] == call.params["invoice"]

    return page(tx, "customer_balance_transaction", call.params, url, wire, among=among, match=match)
