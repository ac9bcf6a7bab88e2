"""Payment intents and setup intents, and the browser's part in confirming them."""

from ..call import Call, create, metadata, reference, update
from ..errors import card_error, invalid, no_such, refused
from ..identifiers import token
from ..listing import page
from ..objects import Obj
from ..wire import bare, wire
from ..world import Transaction
from .charges import finish_charge, new_charge
from .payment_methods import attach_to, decline_of, refusal_of_bank, resolve, settles_later

DEBIT_DAYS = 5
"""How long a bank debit is processing, unless the account's setting ``debit_days`` says otherwise."""

_NEXT_ACTION = {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect"}}


def _secret(tx: Transaction, identifier: str) -> str:
    tx.world.counter += 1
    return f"{identifier}_secret_{token(tx.world.seed, tx.world.counter, 24)}"


def new_payment_intent(tx: Transaction, invoice: Obj) -> Obj:
    identifier = tx.new_id("pi_")
    intent = {
        "id": identifier,
        "object": "payment_intent",
        "amount": invoice["amount_due"],
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": None,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic",
        "client_secret": _secret(tx, identifier),
        "confirmation_method": "automatic",
        "created": tx.now,
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "customer_account": None,
        "description": "Subscription creation"
        if invoice["billing_reason"] == "subscription_create"
        else "Subscription update",
        "excluded_payment_method_types": None,
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": {},
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_configuration_details": None,
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "processing": None,
        "receipt_email": None,
        "review": None,
        "setup_future_usage": "off_session",
        "shipping": None,
        "source": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "requires_payment_method",
        "transfer_data": None,
        "transfer_group": None,
        "_invoice": invoice["id"],
        "_settles_at": None,
    }
    create(tx, intent, "payment_intent.created")
    return intent


def _failure(decline: str, method: Obj) -> Obj:
    return {**card_error(decline).error, "payment_method": bare(method)}


def try_payment(tx: Transaction, intent_id: str, method: Obj) -> str | None:
    """Charges the method; None when it pays, else the reason why not, kept on the intent.

    A bank debit neither pays nor fails at once: the reason is ``processing`` until `finish_debit`.
    """
    intent = tx.need("payment_intent", intent_id)
    if intent["status"] == "processing":
        raise refused(
            "You cannot confirm this PaymentIntent because it has a status of processing.",
            code="payment_intent_unexpected_state",
        )
    if settles_later(method):
        _begin_debit(tx, intent, method)
        return "processing"
    decline = decline_of(method, "charge")
    if decline is None:
        done = {
            **intent,
            "amount_received": intent["amount"],
            "last_payment_error": None,
            "latest_charge": new_charge(tx, intent, method, "succeeded")["id"],
            "next_action": None,
            "payment_method": method["id"],
            "status": "succeeded",
        }
        tx.store("payment_intent", done)
        tx.emit("payment_intent.succeeded", wire(tx, done))
    elif decline == "authentication_required":
        waiting = {
            **intent,
            "next_action": _NEXT_ACTION,
            "payment_method": method["id"],
            "status": "requires_action",
        }
        tx.store("payment_intent", waiting)
        tx.emit("payment_intent.requires_action", wire(tx, waiting))
    else:
        refused_ = {
            **intent,
            "last_payment_error": _failure(decline, method),
            "latest_charge": new_charge(tx, intent, method, "failed", decline)["id"],
            "payment_method": None,
            "status": "requires_payment_method",
        }
        tx.store("payment_intent", refused_)
        tx.emit("payment_intent.payment_failed", wire(tx, refused_))
    return decline


def _begin_debit(tx: Transaction, intent: Obj, method: Obj) -> None:
    days = float(tx.world.settings.get("debit_days", DEBIT_DAYS))
    pending = {
        **intent,
        "last_payment_error": None,
        "latest_charge": new_charge(tx, intent, method, "pending")["id"],
        "next_action": None,
        "payment_method": method["id"],
        "payment_method_types": sorted({*intent["payment_method_types"], method["type"]}),
        "status": "processing",
        "_settles_at": tx.now + int(days * 86_400),
    }
    tx.store("payment_intent", pending)
    tx.emit("payment_intent.processing", wire(tx, pending))


def finish_debit(tx: Transaction, intent: Obj, method: Obj) -> str | None:
    """The bank's answer to a processing debit; None when it pays, else the reason why not."""
    decline = refusal_of_bank(method)
    finish_charge(tx, tx.need("charge", intent["latest_charge"]), decline)
    if decline is None:
        done = {**intent, "amount_received": intent["amount"], "status": "succeeded"}
        tx.store("payment_intent", done)
        tx.emit("payment_intent.succeeded", wire(tx, done))
        return None
    failed = {
        **intent,
        "last_payment_error": _failure(decline, method),
        "payment_method": None,
        "status": "requires_payment_method",
    }
    tx.store("payment_intent", failed)
    tx.emit("payment_intent.payment_failed", wire(tx, failed))
    return decline


def cancel_payment_intent(tx: Transaction, intent_id: str, reason: str) -> None:
    intent = tx.need("payment_intent", intent_id)
    if intent["status"] in ("succeeded", "canceled", "processing"):
        return
    ended = {
        **intent,
        "canceled_at": tx.now,
        "cancellation_reason": reason,
        "next_action": None,
        "status": "canceled",
    }
    tx.store("payment_intent", ended)
    tx.emit("payment_intent.canceled", wire(tx, ended))


def retrieve_payment_intent(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("payment_intent", call.id, "intent"))


def list_payment_intents(call: Call) -> Obj:
    params = call.params

    def match(intent: Obj) -> bool:
        return "customer" not in params or intent["customer"] == params["customer"]

    return page(call.tx, "payment_intent", params, "/v1/payment_intents", wire, match=match)


def new_setup_intent(
    tx: Transaction, customer: str | None, params: Obj, subscription: str | None = None
) -> Obj:
    identifier = tx.new_id("seti_")
    automatic = params.get("automatic_payment_methods")
    intent = {
        "id": identifier,
        "object": "setup_intent",
        "application": None,
        "automatic_payment_methods": automatic,
        "cancellation_reason": None,
        "client_secret": _secret(tx, identifier),
        "created": tx.now,
        "customer": customer,
        "customer_account": None,
        "description": params.get("description"),
        "excluded_payment_method_types": None,
        "flow_directions": None,
        "last_setup_error": None,
        "latest_attempt": None,
        "livemode": False,
        "mandate": None,
        "metadata": metadata({}, params.get("metadata")),
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_configuration_details": None,
        "payment_method_options": {
            "card": {"mandate_options": None, "network": None, "request_three_d_secure": "automatic"}
        },
        "payment_method_types": params.get("allowed_payment_method_types") or ["card"],
        "single_use_mandate": None,
        "status": "requires_payment_method",
        "usage": params.get("usage", "off_session"),
        "_subscription": subscription,
    }
    create(tx, intent, "setup_intent.created")
    return intent


def create_setup_intent(call: Call) -> Obj:
    tx, params = call.tx, call.params
    customer = None
    if params.get("customer"):
        customer = reference(tx, "customer", params["customer"], "customer")["id"]
    intent = new_setup_intent(tx, customer, params)
    if params.get("payment_method"):
        method = resolve(tx, params["payment_method"], "payment_method", 400)
        intent = {**intent, "payment_method": method["id"], "status": "requires_confirmation"}
        tx.store("setup_intent", intent)
    if params.get("confirm"):
        return confirm_setup(tx, intent, None)
    return wire(tx, intent)


def retrieve_setup_intent(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("setup_intent", call.id, "intent"))


def update_setup_intent(call: Call) -> Obj:
    tx, params = call.tx, call.params
    old = tx.need("setup_intent", call.id, "intent")
    new = {**old, "metadata": metadata(old["metadata"], params.get("metadata"))}
    if "customer" in params:
        new["customer"] = reference(tx, "customer", params["customer"], "customer")["id"]
    if "description" in params:
        new["description"] = params["description"]
    if "payment_method" in params:
        new["payment_method"] = resolve(tx, params["payment_method"], "payment_method", 400)["id"]
        new["status"] = "requires_confirmation"
    tx.store("setup_intent", new)
    return wire(tx, new)


def confirm_setup_intent(call: Call) -> Obj:
    intent = call.tx.need("setup_intent", call.id, "intent")
    return confirm_setup(call.tx, intent, call.params.get("payment_method"))


def confirm_setup(
    tx: Transaction, intent: Obj, token_or_id: str | None, *, authenticated: bool = False
) -> Obj:
    """Saves the card for later. A declined card is HTTP 402, and the intent keeps the error."""
    if intent["status"] in ("succeeded", "canceled"):
        raise refused(
            f"You cannot confirm this SetupIntent because it has a status of {intent['status']}.",
            code="setup_intent_unexpected_state",
            setup_intent=bare(intent),
        )
    identifier = token_or_id or intent["payment_method"]
    if not identifier:
        raise refused(
            "You cannot confirm this SetupIntent because it's missing a payment method.",
            code="parameter_missing",
        )
    method = resolve(tx, identifier, "payment_method", 400)
    decline = decline_of(method, "attach")
    if decline is not None:
        failed = {
            **intent,
            "last_setup_error": _failure(decline, method),
            "payment_method": None,
            "status": "requires_payment_method",
        }
        tx.store("setup_intent", failed)
        tx.emit("setup_intent.setup_failed", wire(tx, failed))
        raise card_error(decline, commit=True, setup_intent=bare(failed))
    if decline_of(method, "charge") == "authentication_required" and not authenticated:
        waiting = {
            **intent,
            "next_action": _NEXT_ACTION,
            "payment_method": method["id"],
            "status": "requires_action",
        }
        tx.store("setup_intent", waiting)
        tx.emit("setup_intent.requires_action", wire(tx, waiting))
        return wire(tx, waiting)
    if authenticated:
        method = tx.store("payment_method", {**method, "_authenticated": True})
    if intent["customer"] is not None and method["customer"] is None:
        attach_to(tx, method["id"], intent["customer"])
    done = {
        **intent,
        "last_setup_error": None,
        "next_action": None,
        "payment_method": method["id"],
        "status": "succeeded",
    }
    tx.store("setup_intent", done)
    tx.emit("setup_intent.succeeded", wire(tx, done))
    _settle_subscription(tx, done)
    return wire(tx, done)


def _settle_subscription(tx: Transaction, intent: Obj) -> None:
    sub = tx.get("subscription", intent.get("_subscription"))
    if sub is None or sub["pending_setup_intent"] != intent["id"]:
        return
    new = {**sub, "pending_setup_intent": None, "default_payment_method": intent["payment_method"]}
    update(tx, sub, new, "customer.subscription.updated")


def cancel_setup_intent(call: Call) -> Obj:
    tx = call.tx
    intent = tx.need("setup_intent", call.id, "intent")
    if intent["status"] in ("succeeded", "canceled"):
        raise refused(
            f"You cannot cancel this SetupIntent because it has a status of {intent['status']}.",
            code="setup_intent_unexpected_state",
        )
    ended = {
        **intent,
        "cancellation_reason": call.params.get("cancellation_reason"),
        "next_action": None,
        "status": "canceled",
    }
    tx.store("setup_intent", ended)
    tx.emit("setup_intent.canceled", wire(tx, ended))
    return wire(tx, ended)


def list_setup_intents(call: Call) -> Obj:
    params = call.params

    def match(intent: Obj) -> bool:
        return ("customer" not in params or intent["customer"] == params["customer"]) and (
            "payment_method" not in params or intent["payment_method"] == params["payment_method"]
        )

    return page(call.tx, "setup_intent", params, "/v1/setup_intents", wire, match=match)


def by_secret(tx: Transaction, client_secret: str) -> Obj:
    """The intent that a client secret belongs to."""
    identifier, found, _ = client_secret.partition("_secret_")
    kind = "payment_intent" if identifier.startswith("pi_") else "setup_intent"
    intent = tx.get(kind, identifier) if found else None
    if intent is None:
        raise no_such(kind, identifier, "client_secret", 404)
    if intent["client_secret"] != client_secret:
        raise invalid("The client_secret provided does not match the intent.", "client_secret")
    return intent
