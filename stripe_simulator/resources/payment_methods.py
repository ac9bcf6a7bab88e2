"""Payment methods; Stripe's test tokens become cards or bank debits of their own when they are used."""

from typing import Any

from ..call import Call, metadata, reference, text, update
from ..errors import card_error, invalid, missing_parameter, refused
from ..listing import page
from ..objects import Obj
from ..wire import card_source, source_cards, wire
from ..world import Transaction

TEST_CARDS: dict[str, tuple[str, str, str | None, str | None]] = {
    # token: brand, last four digits, decline when attached, decline when charged
    "pm_card_visa": ("visa", "4242", None, None),
    "pm_card_visa_debit": ("visa", "5556", None, None),
    "pm_card_mastercard": ("mastercard", "4444", None, None),
    "pm_card_amex": ("amex", "0005", None, None),
    "pm_card_discover": ("discover", "1117", None, None),
    "pm_card_visa_applePay": ("visa", "4242", None, None),
    "pm_card_visa_googlePay": ("visa", "4242", None, None),
    "pm_card_chargeDeclined": ("visa", "0002", "generic_decline", "generic_decline"),
    "pm_card_visa_chargeDeclined": ("visa", "0002", "generic_decline", "generic_decline"),
    "pm_card_visa_chargeDeclinedInsufficientFunds": (
        "visa",
        "9995",
        "insufficient_funds",
        "insufficient_funds",
    ),
    "pm_card_chargeDeclinedInsufficientFunds": ("visa", "9995", "insufficient_funds", "insufficient_funds"),
    "pm_card_chargeDeclinedLostCard": ("visa", "9987", "lost_card", "lost_card"),
    "pm_card_chargeDeclinedStolenCard": ("visa", "9979", "stolen_card", "stolen_card"),
    "pm_card_chargeDeclinedExpiredCard": ("visa", "0069", "expired_card", "expired_card"),
    "pm_card_chargeDeclinedIncorrectCvc": ("visa", "0127", "incorrect_cvc", "incorrect_cvc"),
    "pm_card_chargeDeclinedProcessingError": ("visa", "0119", "processing_error", "processing_error"),
    "pm_card_chargeCustomerFail": ("visa", "0341", None, "generic_decline"),
    "pm_card_authenticationRequired": ("visa", "3184", None, "authentication_required"),
    "pm_card_authenticationRequiredOnSetup": ("visa", "3155", None, "authentication_required_once"),
    "pm_card_threeDSecure2Required": ("visa", "3220", None, "authentication_required"),
}
TEST_NUMBERS = {
    "4242424242424242": "pm_card_visa",
    "5555555555554444": "pm_card_mastercard",
    "4000000000000002": "pm_card_chargeDeclined",
    "4000000000000341": "pm_card_chargeCustomerFail",
    "4000000000009995": "pm_card_chargeDeclinedInsufficientFunds",
    "4000002760003184": "pm_card_authenticationRequired",
    "4000002500003155": "pm_card_authenticationRequiredOnSetup",
    "4000000000003220": "pm_card_threeDSecure2Required",
}
WALLETS = {"pm_card_visa_applePay": "apple_pay", "pm_card_visa_googlePay": "google_pay"}

TEST_DEBITS: dict[str, tuple[str, str, str | None]] = {
    # token: type, last four characters of the account, why the bank refuses (None: it pays)
    "pm_sepaDebit": ("sepa_debit", "3000", None),
    "pm_sepaDebitFailed": ("sepa_debit", "3001", "debit_not_authorized"),
    "pm_sepaDebitInsufficientFunds": ("sepa_debit", "3006", "debit_insufficient_funds"),
    "pm_usBankAccount": ("us_bank_account", "6789", None),
    "pm_usBankAccountFailed": ("us_bank_account", "1116", "debit_insufficient_funds"),
}
TEST_ACCOUNTS = {
    "DE89370400440532013000": "pm_sepaDebit",
    "DE62370400440532013001": "pm_sepaDebitFailed",
    "DE65370400440000343434": "pm_sepaDebitInsufficientFunds",
    "000123456789": "pm_usBankAccount",
    "000111111116": "pm_usBankAccountFailed",
}


def _debit(tx: Transaction, token: str) -> Obj:
    kind, last4, _ = TEST_DEBITS[token]
    fingerprint = f"{kind}{last4}".replace("_", "").ljust(16, "0")[:16]
    if kind == "sepa_debit":
        details: Obj = {
            "bank_code": "37040044",
            "branch_code": "",
            "country": "DE",
            "fingerprint": fingerprint,
            "generated_from": {"charge": None, "setup_attempt": None},
            "last4": last4,
        }
    else:
        details = {
            "account_holder_type": "individual",
            "account_type": "checking",
            "bank_name": "STRIPE TEST BANK",
            "financial_connections_account": None,
            "fingerprint": fingerprint,
            "last4": last4,
            "networks": {"preferred": "ach", "supported": ["ach"]},
            "routing_number": "110000000",
            "status_details": {},
        }
    return {**_blank(tx, token), kind: details, "type": kind}


def _blank(tx: Transaction, token: str) -> Obj:
    return {
        "id": tx.new_id("pm_"),
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": {
            "address": dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state")),
            "email": None,
            "name": None,
            "phone": None,
            "tax_id": None,
        },
        "created": tx.now,
        "customer": None,
        "customer_account": None,
        "livemode": False,
        "metadata": {},
        "_token": token,
    }


def new_card(tx: Transaction, token: str, given: Obj | None = None) -> Obj:
    brand, last4, _, _ = TEST_CARDS[token]
    given = given or {}
    wallet = WALLETS.get(token)
    return {
        **_blank(tx, token),
        "card": {
            "brand": brand,
            "checks": {
                "address_line1_check": None,
                "address_postal_code_check": None,
                "cvc_check": "unchecked",
            },
            "country": "US",
            "display_brand": brand,
            "exp_month": int(given.get("exp_month", 12)),
            "exp_year": int(given.get("exp_year", 2034)),
            "fingerprint": f"{brand}{last4}".ljust(16, "0"),
            "funding": "debit" if "debit" in token else "credit",
            "generated_from": None,
            "last4": last4,
            "networks": {"available": [brand], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True},
            "wallet": None if wallet is None else {"dynamic_last4": None, "type": wallet, wallet: {}},
        },
        "type": "card",
    }


def resolve(tx: Transaction, identifier: str, param: str = "payment_method", status: int = 404) -> Obj:
    """The named payment method; a test token becomes a new card or bank debit."""
    if identifier in TEST_CARDS:
        return tx.store("payment_method", new_card(tx, identifier))
    if identifier in TEST_DEBITS:
        return tx.store("payment_method", _debit(tx, identifier))
    return tx.need("payment_method", identifier, param, status)


def decline_of(method: Obj, when: str) -> str | None:
    """Why the method refuses, ``when`` being ``attach`` or ``charge``; None when it pays.

    A bank debit refuses neither: whether the bank pays is known only days later (`refusal_of_bank`).
    """
    if method["type"] != "card":
        return None
    _, _, attach, charge = TEST_CARDS[method["_token"]]
    if when == "attach":
        return attach
    if charge in ("authentication_required", "authentication_required_once"):
        return None if method.get("_authenticated") else "authentication_required"
    return charge


def settles_later(method: Obj | None) -> bool:
    """Whether the method is a bank debit, whose payment is processing for days."""
    return method is not None and method["type"] != "card"


def refusal_of_bank(method: Obj) -> str | None:
    """Why the bank returns a debit at its end; None when it pays."""
    return TEST_DEBITS[method["_token"]][2]


def create_payment_method(call: Call) -> Obj:
    tx, params = call.tx, call.params
    kind: Any = params.get("type")
    if kind in ("sepa_debit", "us_bank_account"):
        return _create_debit(tx, params, kind)
    if kind != "card" or not isinstance(params.get("card"), dict):
        raise invalid(
            "Only payment methods of type card, sepa_debit and us_bank_account are simulated.", "type"
        )
    card: Any = params["card"]
    token = card.get("token")
    if token is not None:
        token = token.replace("tok_", "pm_card_")
    else:
        token = TEST_NUMBERS.get(str(card.get("number", "")).replace(" ", ""))
    if token not in TEST_CARDS:
        raise card_error("incorrect_cvc") if token is None else invalid("No such token", "card[token]")
    return _created(tx, params, new_card(tx, token, card))


def _create_debit(tx: Transaction, params: Obj, kind: str) -> Obj:
    given = params.get(kind) or {}
    name = "iban" if kind == "sepa_debit" else "account_number"
    if not given.get(name):
        raise missing_parameter(f"{kind}[{name}]")
    token = TEST_ACCOUNTS.get(given[name].replace(" ", ""))
    if token is None or TEST_DEBITS[token][0] != kind:
        raise refused(
            f"The {name} is none of the test accounts.", f"{kind}[{name}]", "account_number_invalid"
        )
    return _created(tx, params, _debit(tx, token))


def _created(tx: Transaction, params: Obj, method: Obj) -> Obj:
    if "billing_details" in params:
        method["billing_details"] = {**method["billing_details"], **params["billing_details"]}
    method["metadata"] = metadata({}, params.get("metadata"))
    tx.store("payment_method", method)
    return wire(tx, method)


def retrieve_payment_method(call: Call) -> Obj:
    return wire(call.tx, resolve(call.tx, call.id))


def update_payment_method(call: Call) -> Obj:
    tx, params = call.tx, call.params
    old = tx.need("payment_method", call.id)
    if old["customer"] is None:
        raise refused(
            "You must save this PaymentMethod to a customer before you can update it.",
            "id",
            "payment_method_unexpected_state",
        )
    new = dict(old)
    if "billing_details" in params:
        given = {
            name: text(value) if name != "address" else value
            for name, value in params["billing_details"].items()
        }
        new["billing_details"] = {**old["billing_details"], **given}
    if "card" in params:
        if old["type"] != "card":
            raise refused(f"You cannot update card of a PaymentMethod of type {old['type']}.", "card")
        given = {
            name: int(value) for name, value in params["card"].items() if name in ("exp_month", "exp_year")
        }
        new["card"] = {**old["card"], **given}
    if "allow_redisplay" in params:
        new["allow_redisplay"] = params["allow_redisplay"]
    new["metadata"] = metadata(old["metadata"], params.get("metadata"))
    return update(tx, old, new, "payment_method.updated")


def attach_to(tx: Transaction, identifier: str, customer_id: str) -> Obj:
    customer = reference(tx, "customer", customer_id, "customer")
    method = resolve(tx, identifier)
    if method["customer"] == customer["id"]:
        return wire(tx, method)
    if method["customer"] is not None:
        raise refused(
            "The payment method you provided has already been attached to a customer.",
            "payment_method",
            "payment_method_unexpected_state",
        )
    if method.get("_detached"):
        raise refused(
            "This PaymentMethod was previously used without being attached to a Customer or was detached from a "
            "Customer, and may not be used again.",
            "payment_method",
            "payment_method_unexpected_state",
        )
    decline = decline_of(method, "attach")
    if decline is not None:
        raise card_error(decline)
    attached = {**method, "customer": customer["id"]}
    tx.store("payment_method", attached)
    shown = wire(tx, attached)
    tx.emit("payment_method.attached", shown)
    return shown


def attach(call: Call) -> Obj:
    return attach_to(call.tx, call.id, call.params["customer"])


def detach(call: Call) -> Obj:
    """Frees the method for good, and clears it wherever it was a default."""
    old = call.tx.need("payment_method", call.id)
    if old["customer"] is None:
        raise refused(
            "The payment method you provided is not attached to a customer so detachment is impossible.",
            "payment_method",
            "payment_method_unexpected_state",
        )
    return detach_from(call.tx, old)


def detach_from(tx: Transaction, old: Obj) -> Obj:
    """Detach an attached method. Only a customer that had it as a default gets an update event.

    Stripe does not say what becomes of the customer's default: by the account's setting ``detach_keeps_default`` the
    detached id stays there, and the customer is not touched at all.
    """
    new = {**old, "customer": None, "_detached": True}
    shown = update(tx, old, new, "payment_method.detached")
    if old["id"].startswith("card_"):
        tx.emit("customer.source.deleted", card_source(old))
    owner = tx.get("customer", old["customer"])
    if owner is not None and not owner.get("deleted"):
        update(tx, owner, _without(tx, owner, old["id"]), "customer.updated")
    for sub in tx.find("subscription", "customer", old["customer"]):
        freed = {
            name: None for name in ("default_payment_method", "default_source") if sub[name] == old["id"]
        }
        if freed:
            update(tx, sub, {**sub, **freed}, "customer.subscription.updated")
    return shown


def _without(tx: Transaction, owner: Obj, identifier: str) -> Obj:
    settings = owner["invoice_settings"]
    new = dict(owner)
    if settings["default_payment_method"] == identifier and not tx.world.settings.get("detach_keeps_default"):
        new["invoice_settings"] = {**settings, "default_payment_method": None}
    if owner["default_source"] == identifier:
        left = source_cards(tx, owner)
        new["default_source"] = left[0]["id"] if left else None
    return new


def list_payment_methods(call: Call) -> Obj:
    params = call.params
    if "customer" not in params:
        return page(
            call.tx, "payment_method", params, "/v1/payment_methods", wire, match=lambda m: m["customer"]
        )
    return _of_customer(call, params["customer"], "/v1/payment_methods", "customer", 400)


def list_of_customer(call: Call) -> Obj:
    return _of_customer(call, call.id, f"/v1/customers/{call.id}/payment_methods", "customer", 404)


def _of_customer(call: Call, customer: str, url: str, param: str, status: int) -> Obj:
    tx, params = call.tx, call.params
    tx.need("customer", customer, param, status)
    among = tx.world.collection("payment_method").find("customer", customer)

    def match(method: Obj) -> bool:
        return "type" not in params or method["type"] == params["type"]

    return page(tx, "payment_method", params, url, wire, among=among, match=match)


def retrieve_of_customer(call: Call) -> Obj:
    call.tx.need("customer", call.ids[0], "customer")
    method = call.tx.need("payment_method", call.ids[1], "payment_method")
    if method["customer"] != call.ids[0]:
        method = call.tx.need("payment_method", "", "payment_method")
    return wire(call.tx, method)
