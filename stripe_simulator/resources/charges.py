"""Charges: what became of each attempt to collect a payment intent."""

from ..call import Call
from ..errors import card_error
from ..listing import page
from ..objects import Obj
from ..wire import wire
from ..world import Transaction


def new_charge(tx: Transaction, intent: Obj, method: Obj, status: str, decline: str | None = None) -> Obj:
    """Store and announce the charge of an attempt; ``status`` is succeeded, pending or failed."""
    charge = {
        "id": tx.new_id("ch_" if method["type"] == "card" else "py_"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": 0 if status == "failed" else intent["amount"],
        "amount_refunded": 0,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "authorization_code": None,
        "balance_transaction": None,
        "billing_details": method["billing_details"],
        "calculated_statement_descriptor": "SIMULATED ACCOUNT",
        "captured": status != "failed",
        "created": tx.now,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": None,
        "failure_message": None,
        "fraud_details": {},
        "livemode": False,
        "metadata": {},
        "on_behalf_of": None,
        "outcome": _outcome(status, None),
        "paid": status == "succeeded",
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": {method["type"]: _details(method), "type": method["type"]},
        "receipt_email": None,
        "receipt_number": None,
        "receipt_url": None,
        "refunded": False,
        "review": None,
        "shipping": None,
        "source": None,
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": status,
        "transfer_data": None,
        "transfer_group": None,
    }
    if decline is not None:
        charge.update(_failure(decline))
    tx.store("charge", charge)
    tx.emit(f"charge.{status}", wire(tx, charge))
    return charge


def finish_charge(tx: Transaction, charge: Obj, decline: str | None) -> None:
    """The bank's answer to a pending charge."""
    status = "succeeded" if decline is None else "failed"
    done = {**charge, "outcome": _outcome(status, None), "paid": decline is None, "status": status}
    if decline is not None:
        done.update(_failure(decline))
    tx.store("charge", done)
    tx.emit(f"charge.{status}", wire(tx, done))


def _failure(decline: str) -> Obj:
    error = card_error(decline).error
    return {
        "failure_code": error["code"],
        "failure_message": error["message"],
        "outcome": _outcome("failed", decline),
    }


def _outcome(status: str, decline: str | None) -> Obj:
    return {
        "advice_code": None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "declined_by_network" if status == "failed" else "approved_by_network",
        "reason": decline,
        "risk_level": "normal",
        "seller_message": "Payment complete." if status != "failed" else "The bank did not pay.",
        "type": "issuer_declined" if status == "failed" else "authorized",
    }


_SHOWN = {
    "card": ("brand", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4", "wallet"),
    "sepa_debit": ("bank_code", "branch_code", "country", "fingerprint", "last4"),
    "us_bank_account": (
        "account_holder_type",
        "account_type",
        "bank_name",
        "fingerprint",
        "last4",
        "routing_number",
    ),
}


def _details(method: Obj) -> Obj:
    own = method[method["type"]]
    return {"mandate": None, **{name: own[name] for name in _SHOWN[method["type"]]}}


def retrieve_charge(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("charge", call.id, "charge"))


def list_charges(call: Call) -> Obj:
    params = call.params
    among = None
    if "payment_intent" in params:
        among = call.tx.world.collection("charge").find("payment_intent", params["payment_intent"])
    elif "customer" in params:
        among = call.tx.world.collection("charge").find("customer", params["customer"])

    def match(charge: Obj) -> bool:
        return "customer" not in params or charge["customer"] == params["customer"]

    return page(call.tx, "charge", params, "/v1/charges", wire, among=among, match=match)
