"""The payer's browser: confirming payment and setup intents by their client secrets."""

from .charging import begun, resumption_failed, settled
from .errors import ApiError, card_error, refused
from .invoicing import attempt
from .objects import Obj
from .resources.intents import by_secret, confirm_setup
from .resources.payment_methods import attach_to, decline_of, resolve
from .wire import wire
from .world import Transaction


def confirm(tx: Transaction, client_secret: str, token: str | None, authenticate: bool) -> Obj:
    """Confirms with a card, the visa test card by default. Raises 402 when it is declined."""
    intent = by_secret(tx, client_secret)
    chosen = token or intent["payment_method"] or "pm_card_visa"
    if intent["object"] == "setup_intent":
        return _setup(tx, intent, chosen, authenticate)
    return _payment(tx, intent, chosen, authenticate)


def _setup(tx: Transaction, intent: Obj, token: str, authenticate: bool) -> Obj:
    answer = confirm_setup(tx, intent, token)
    if answer["status"] != "requires_action":
        return answer
    waiting = tx.need("setup_intent", intent["id"])
    if authenticate:
        return confirm_setup(tx, waiting, None, authenticated=True)
    failed = {**waiting, "next_action": None, "payment_method": None, "status": "requires_payment_method"}
    tx.store("setup_intent", failed)
    tx.emit("setup_intent.setup_failed", wire(tx, failed))
    return wire(tx, failed)


def _payment(tx: Transaction, intent: Obj, token: str, authenticate: bool) -> Obj:
    if intent["status"] in ("succeeded", "canceled", "processing"):
        raise refused(
            f"You cannot confirm this PaymentIntent because it has a status of {intent['status']}.",
            code="payment_intent_unexpected_state",
        )
    method = resolve(tx, token, "payment_method", 400)
    decline = decline_of(method, "charge")
    if decline == "authentication_required" and authenticate:
        method = tx.store("payment_method", {**method, "_authenticated": True})
    invoice = tx.need("invoice", intent["_invoice"])
    if method["customer"] is None and decline_of(method, "attach") is None:
        attach_to(tx, method["id"], invoice["customer"])
        method = tx.need("payment_method", method["id"])
    invoice, decline = attempt(tx, invoice, method, automatic=False)
    if decline is None:
        settled(tx, invoice, method)
    elif decline == "processing":
        begun(tx, invoice)
    else:
        resumption_failed(tx, invoice)
    if decline in (None, "processing"):
        return wire(tx, tx.need("payment_intent", intent["id"]))
    if decline != "authentication_required":
        raise _declined(tx, intent["id"], decline)
    return wire(tx, tx.need("payment_intent", intent["id"]))


def _declined(tx: Transaction, intent_id: str, decline: str) -> ApiError:
    return card_error(decline, commit=True, payment_intent=wire(tx, tx.need("payment_intent", intent_id)))
