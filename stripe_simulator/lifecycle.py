"""What happens as time passes: renewals, trial ends, cancellations, dunning and expiries."""

from collections.abc import Callable

from .call import update
from .charging import (
    charge,
    collect,
    debit_due,
    drop_pending_update,
    drop_resumption,
    issue_cycle,
    settled,
    spent,
)
from .invoicing import as_billed, default_method, finalize, pending_items
from .objects import Obj
from .rebilling import Rebill, renewed
from .resources.schedules import released
from .resources.subscription_pauses import paused
from .resources.subscriptions import end_subscription
from .schedule import EXPIRE_INCOMPLETE_SECONDS, TRIAL_WARNING_SECONDS, due
from .usage import accrued_lines
from .wire import wire
from .world import Transaction, World

ACTOR = {"type": "clock", "request": None, "idempotency_key": None}
Commit = Callable[[Transaction], None]


def run_due(world: World, commit: Commit, until: float) -> int:
    """Does everything that falls due up to ``until``, each at its own moment; gives the number of steps."""
    steps = 0
    while (earliest := world.earliest_due()) is not None and earliest <= until:
        moment, kind, identifier = world.take_due()
        obj = world.get(kind, identifier)
        if obj is None or due(obj) != moment:
            continue
        if moment > world.clock.now():
            world.clock.move_to(moment)
        tx = Transaction(world, ACTOR)
        tx.at, tx.now = float(moment), int(moment)
        if kind == "invoice":
            _invoice(tx, obj)
        elif kind == "payment_intent":
            debit_due(tx, obj)
        elif kind == "subscription_schedule":
            _schedule(tx, obj)
        else:
            _subscription(tx, obj)
        commit(tx)
        steps += 1
    return steps


def _schedule(tx: Transaction, schedule: Obj) -> None:
    """The last phase ends: the subscription goes on by itself, or ends with its schedule."""
    if schedule["end_behavior"] == "release":
        released(tx, schedule)
        return
    _end_of_term(tx, tx.need("subscription", schedule["subscription"]))


def _invoice(tx: Transaction, invoice: Obj) -> None:
    sub = tx.get("subscription", invoice["_subscription"])
    if invoice["status"] == "draft":
        invoice = finalize(tx, {**invoice, "_finalize_at": None}, invoice["_pause"])
        if invoice["status"] == "paid":
            settled(tx, invoice, None)
        if invoice["status"] != "open" or invoice["collection_method"] != "charge_automatically":
            return
    collect(tx, invoice, None if sub is None else default_method(tx, sub), automatic=True)


def _subscription(tx: Transaction, sub: Obj) -> None:
    """The one thing that is due first; what else is due at the same moment comes in the next step."""
    if sub["status"] == "incomplete":
        if sub["created"] + EXPIRE_INCOMPLETE_SECONDS <= tx.now:
            end_subscription(tx, sub, reason="expired")
        return
    if sub["pending_update"] is not None and sub["pending_update"]["expires_at"] <= tx.now:
        shown = update(tx, sub, drop_pending_update(tx, sub), "customer.subscription.updated")
        tx.emit("customer.subscription.pending_update_expired", shown)
        return
    if sub["cancel_at"] is not None and sub["cancel_at"] <= tx.now:
        _end_of_term(tx, sub)
        return
    if sub["status"] == "paused" and sub["_resuming"] is not None and sub["_resuming"]["until"] == tx.now:
        _not_resumed(tx, sub)
        return
    resumes = (sub["pause_collection"] or {}).get("resumes_at")
    if resumes is not None and resumes <= tx.now:
        update(tx, sub, {**sub, "pause_collection": None}, "customer.subscription.updated")
        return
    trialing = sub["status"] == "trialing"
    if (
        trialing
        and not sub["_trial_warned"]
        and sub["trial_end"] - TRIAL_WARNING_SECONDS <= tx.now < sub["trial_end"]
    ):
        warned = tx.store("subscription", {**sub, "_trial_warned": True})
        tx.emit("customer.subscription.trial_will_end", wire(tx, warned))
        return
    if trialing and sub["trial_end"] <= tx.now and _trial_without_card(tx, sub):
        return
    _renew(tx, sub)


def _not_resumed(tx: Transaction, sub: Obj) -> None:
    """Nobody tried to pay the resumption invoice in time: it is voided, and the subscription stays paused."""
    tx.store("subscription", drop_resumption(tx, sub))


def _end_of_term(tx: Transaction, sub: Obj) -> None:
    """Cancels, and bills the usage of the last period and the prorations that are still pending."""
    used = [] if sub["status"] == "paused" else accrued_lines(tx, sub, tx.now)
    if used or pending_items(tx, sub):
        items = [{**item, "_previous_start": item["current_period_start"]} for item in sub["_items"]]
        change = Rebill({**sub, "_items": items}, used, False, items)
        sub = charge(tx, change, reason="subscription_cycle", behavior="allow_incomplete").sub
        tx.store("subscription", sub)
    end_subscription(tx, sub, reason=sub["cancellation_details"]["reason"] or "cancellation_requested")


def _trial_without_card(tx: Transaction, sub: Obj) -> bool:
    """Applies the end behaviour of a trial that ends with no payment method; True when that was all."""
    behavior = sub["trial_settings"]["end_behavior"]["missing_payment_method"]
    if behavior == "create_invoice" or default_method(tx, sub) is not None:
        return False
    if behavior == "cancel":
        end_subscription(tx, sub, reason=None)
        return True
    details = {
        "paused": {
            "subscription": {"type": "trial_end_without_payment_method"},
            "transitioned_at": tx.now,
            "type": "subscription",
        }
    }
    paused(tx, sub, {**sub, "status": "paused", "status_details": details})
    return True


def _renew(tx: Transaction, sub: Obj) -> None:
    moved, lines = renewed(tx, sub, tx.now)
    if sub["status"] == "trialing":
        moved = {**moved, "status": "active"}
    tx.store("subscription", moved)
    invoice = issue_cycle(tx, moved, Rebill(moved, lines, True, moved["_items"]), "subscription_cycle")
    billed = spent(tx, as_billed(moved, invoice))
    update(tx, sub, {**billed, "latest_invoice": invoice["id"]}, "customer.subscription.updated")
