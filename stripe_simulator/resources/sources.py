"""Cards saved as sources (`card_…`), the way of saving a card before payment methods.

A source is stored as the payment method that Stripe also shows it as; `wire.card_source` is its older form.
"""

from ..call import Call, metadata, text, update
from ..errors import card_error, invalid, no_such, refused
from ..listing import sequence
from ..objects import Obj
from ..wire import card_source, source_cards
from ..world import Transaction
from .payment_methods import TEST_CARDS, decline_of, detach_from, new_card


def add_source(tx: Transaction, customer: Obj, token: str, param: str) -> tuple[Obj, Obj]:
    """Save the card of a token (`tok_visa`); the customer's first source becomes the default.

    Returns the stored method and the customer afterwards. Raises 400 for an unknown token, 402 for a declined card.
    """
    name = token.replace("tok_", "pm_card_", 1)
    if not token.startswith("tok_") or name not in TEST_CARDS:
        raise no_such("token", token, param, 400)
    method = {**new_card(tx, name), "id": tx.new_id("card_"), "customer": customer["id"]}
    declined = decline_of(method, "attach")
    if declined is not None:
        raise card_error(declined, param=param)
    tx.store("payment_method", method)
    tx.emit("customer.source.created", card_source(method))
    if customer["default_source"] is None:
        customer = set_default(tx, customer, method["id"])
    return method, customer


def set_default(tx: Transaction, customer: Obj, identifier: str | None) -> Obj:
    new = {**customer, "default_source": identifier}
    update(tx, customer, new, "customer.updated")
    return new


def owned_source(tx: Transaction, customer: str, identifier: str, param: str) -> str:
    """The id of a source of the customer. Raises 400 for any other."""
    method = tx.get("payment_method", identifier)
    if method is None or not identifier.startswith("card_") or method["customer"] != customer:
        raise refused(
            f"Customer {customer} does not have a linked source with ID {identifier}.", param, "missing"
        )
    return identifier


def create_source(call: Call) -> Obj:
    tx, params = call.tx, call.params
    customer = tx.need("customer", call.id, "customer")
    method, _ = add_source(tx, customer, params["source"], "source")
    if "metadata" in params:
        method = tx.store("payment_method", {**method, "metadata": metadata({}, params["metadata"])})
    return card_source(method)


def _of_path(call: Call) -> Obj:
    tx = call.tx
    tx.need("customer", call.ids[0], "customer")
    method = tx.get("payment_method", call.ids[1])
    if method is None or not call.ids[1].startswith("card_") or method["customer"] != call.ids[0]:
        raise no_such("source", call.ids[1], "id", 404)
    return method


def retrieve_source(call: Call) -> Obj:
    return card_source(_of_path(call))


def list_sources(call: Call) -> Obj:
    tx, params = call.tx, call.params
    customer = tx.need("customer", call.id, "customer")
    if params.get("object", "card") != "card":
        raise invalid("The simulator has sources of object card only.", "object")
    return sequence(source_cards(tx, customer), params, f"/v1/customers/{call.id}/sources", "source")


def delete_source(call: Call) -> Obj:
    """Detach the card; the youngest source that is left becomes the default."""
    method = _of_path(call)
    detach_from(call.tx, method)
    return {"id": method["id"], "object": "card", "deleted": True}


def take_sources(tx: Transaction, customer: Obj, params: Obj) -> Obj:
    """Apply ``source`` and ``default_source`` of a customer's create or update; returns the customer afterwards."""
    token = text(params.get("source"))
    if token is not None:
        method, customer = add_source(tx, customer, token, "source")
        # A source that is given to the customer itself replaces the default one.
        customer = set_default(tx, customer, method["id"])
    if "default_source" in params:
        identifier = text(params["default_source"])
        if identifier is not None:
            owned_source(tx, customer["id"], identifier, "default_source")
        customer = set_default(tx, customer, identifier)
    return customer
