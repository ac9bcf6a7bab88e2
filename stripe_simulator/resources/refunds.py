"""Refunds of charges, and disputes that a customer's bank opens and decides."""

from ..call import Call, metadata, reference
from ..errors import invalid, missing_parameter, refused
from ..listing import page
from ..objects import Obj
from ..wire import wire
from ..world import Transaction

DISPUTE_ANSWER_SECONDS = 9 * 86_400


def _charge_of(tx: Transaction, given: Obj) -> Obj:
    """The charge that ``charge`` or ``payment_intent`` names."""
    if given.get("charge"):
        return reference(tx, "charge", given["charge"], "charge")
    if not given.get("payment_intent"):
        raise missing_parameter("charge")
    intent = reference(tx, "payment_intent", given["payment_intent"], "payment_intent")
    charge = tx.get("charge", intent["latest_charge"])
    if charge is None:
        raise refused("This PaymentIntent does not have a successful charge to refund.", "payment_intent")
    return charge


def refund(tx: Transaction, charge: Obj, amount: int | None, **details: object) -> Obj:
    """Give a charge back, all that is left of it unless ``amount`` is given. Raises 400 where Stripe refuses."""
    left = charge["amount_captured"] - charge["amount_refunded"]
    if charge["status"] != "succeeded":
        raise refused(f"Charge {charge['id']} is {charge['status']} and cannot be refunded.", "charge")
    if any(dispute["status"] != "won" for dispute in tx.find("dispute", "charge", charge["id"])):
        raise refused(
            f"Charge {charge['id']} has been charged back; cannot issue a refund.",
            "charge",
            "charge_disputed",
        )
    if left == 0:
        raise refused(
            f"Charge {charge['id']} has already been refunded.", "charge", "charge_already_refunded"
        )
    amount = left if amount is None else amount
    if amount < 1:
        raise invalid("Invalid positive integer", "amount", "parameter_invalid_integer")
    if amount > left:
        raise refused(
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left}).", "amount"
        )
    made = {
        "id": tx.new_id("re_"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": charge["id"],
        "created": tx.now,
        "currency": charge["currency"],
        "customer": charge["customer"],
        "customer_account": None,
        "destination_details": {"type": charge["payment_method_details"]["type"]},
        "metadata": {},
        "next_action": None,
        "payment_intent": charge["payment_intent"],
        "payment_method": charge["payment_method"],
        "pending_reason": None,
        "reason": None,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
        **details,
    }
    tx.store("refund", made)
    tx.emit("refund.created", wire(tx, made))
    refunded = charge["amount_refunded"] + amount
    given_back = {**charge, "amount_refunded": refunded, "refunded": refunded == charge["amount_captured"]}
    before = {"amount_refunded": charge["amount_refunded"], "refunded": charge["refunded"]}
    tx.store("charge", given_back)
    tx.emit("charge.refunded", wire(tx, given_back), before)
    return made


_UNSIMULATED = ("currency", "customer", "instructions_email", "origin", "refund_application_fee")


def create_refund(call: Call) -> Obj:
    tx, params = call.tx, call.params
    for name in (*_UNSIMULATED, "reverse_transfer"):
        if params.get(name):
            raise refused(f"The simulator does not simulate the parameter {name}.", name)
    made = refund(
        tx,
        _charge_of(tx, params),
        params.get("amount"),
        metadata=metadata({}, params.get("metadata")),
        reason=params.get("reason"),
    )
    return wire(tx, made)


def retrieve_refund(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("refund", call.id, "refund"))


def _of_charge(call: Call, kind: str, url: str) -> Obj:
    params = call.params

    def match(obj: Obj) -> bool:
        return ("charge" not in params or obj["charge"] == params["charge"]) and (
            "payment_intent" not in params or obj["payment_intent"] == params["payment_intent"]
        )

    among = None
    if "charge" in params:
        among = call.tx.world.collection(kind).find("charge", params["charge"])
    return page(call.tx, kind, params, url, wire, among=among, match=match)


def list_refunds(call: Call) -> Obj:
    return _of_charge(call, "refund", "/v1/refunds")


def retrieve_dispute(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("dispute", call.id, "dispute"))


def list_disputes(call: Call) -> Obj:
    return _of_charge(call, "dispute", "/v1/disputes")


def close_dispute(call: Call) -> Obj:
    """Accept a dispute, which loses it."""
    return decide(call.tx, call.tx.need("dispute", call.id, "dispute"), "lost")


def dispute(tx: Transaction, given: Obj) -> Obj:
    """Open a dispute of ``charge`` or ``payment_intent``, or decide ``dispute`` by ``status`` won or lost.

    ``amount`` (the whole charge) and ``reason`` (``fraudulent``) go with a new one.
    """
    status = given.get("status", "needs_response")
    if given.get("dispute"):
        return decide(tx, tx.need("dispute", given["dispute"], "dispute"), status)
    opened = _open(tx, _charge_of(tx, given), given)
    return decide(tx, opened, status) if status in ("won", "lost") else wire(tx, opened)


def _open(tx: Transaction, charge: Obj, given: Obj) -> Obj:
    if charge["status"] != "succeeded":
        raise refused(f"Charge {charge['id']} is {charge['status']}: nothing to dispute.", "charge")
    kind = charge["payment_method_details"]["type"]
    details: Obj = {"type": kind}
    if kind == "card":
        brand = charge["payment_method_details"]["card"]["brand"]
        details["card"] = {"brand": brand, "case_type": "chargeback", "network_reason_code": "10.4"}
    opened = {
        "id": tx.new_id("du_"),
        "object": "dispute",
        "amount": int(given["amount"] if "amount" in given else charge["amount"]),
        "balance_transactions": [],
        "charge": charge["id"],
        "created": tx.now,
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {},
        "evidence_details": {
            "due_by": tx.now + DISPUTE_ANSWER_SECONDS,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "not_submitted",
        },
        "intended_submission_method": None,
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "payment_method_details": details,
        "reason": given.get("reason", "fraudulent"),
        "status": "needs_response",
    }
    tx.store("charge", {**charge, "disputed": True})
    tx.store("dispute", opened)
    tx.emit("charge.dispute.created", wire(tx, opened))
    tx.emit("charge.dispute.funds_withdrawn", wire(tx, opened))
    return opened


def decide(tx: Transaction, opened: Obj, status: str) -> Obj:
    """Close a dispute as won or lost."""
    if status not in ("won", "lost"):
        raise invalid("status is won or lost", "status")
    if opened["status"] in ("won", "lost"):
        raise refused(f"This dispute is already {opened['status']}.", "dispute")
    closed = {**opened, "status": status}
    tx.store("dispute", closed)
    shown = wire(tx, closed)
    tx.emit("charge.dispute.closed", shown, {"status": opened["status"]})
    if status == "won":
        tx.emit("charge.dispute.funds_reinstated", shown)
    return shown
