"""What a new or changed subscription bills: lines now, prorations later, and the items' periods afterwards."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from .billing import (
    BillingInputError,
    BillingMode,
    Cadence,
    Debit,
    ItemChange,
    Line,
    Period,
    Proration,
    first_period,
    free_line,
    is_metered,
    item_line,
    next_period_end,
    period_at,
    period_line,
    prorate,
    prorate_all,
    trial_line,
)
from .errors import ApiError, invalid, refused
from .invoicing import full_debit, item_state, pack_debits, unpack_debits
from .objects import Obj
from .usage import item_usage
from .world import Transaction


@dataclass(slots=True)
class Rebill:
    """A subscription after a change, with its lines; ``whole`` says that a new cycle began, which bills at once."""

    sub: Obj
    lines: list[Line]
    whole: bool
    items: list[Obj]


def mode_of(sub: Obj) -> BillingMode:
    return BillingMode(sub["billing_mode"]["type"])


def in_trial(sub: Obj, moment: int) -> bool:
    return sub["trial_end"] is not None and sub["trial_end"] > moment


def _moved(item: Obj, period: Period, debits: Iterable[Debit], anchor: int | None = None) -> Obj:
    return {
        **item,
        "current_period_start": period.start,
        "current_period_end": period.end,
        "_anchor": item["_anchor"] if anchor is None else anchor,
        "_debits": pack_debits(debits),
    }


def first_lines(tx: Transaction, sub: Obj, proration: str) -> Rebill:
    """The first periods and lines of a subscription that starts now."""
    anchor = sub["billing_cycle_anchor"]
    lines: list[Line] = []
    items = []
    for item in sub["_items"]:
        state = item_state(tx, sub, item)
        if in_trial(sub, tx.now):
            period = Period(tx.now, sub["trial_end"])
            if not is_metered(state.price):
                nothing = free_line if mode_of(sub) is BillingMode.FLEXIBLE else trial_line
                lines.append(nothing(state, period))
            items.append(_moved(item, period, (), anchor))
            continue
        if is_metered(state.price):
            period = Period(tx.now, period_at(anchor, state.cadence, tx.now).end)
            if mode_of(sub) is BillingMode.CLASSIC:
                # Flexible billing leaves this empty line out ("Compare classic and flexible billing mode").
                lines.append(item_line(state, 0, state.product_name, period))
            items.append(_moved(item, period, (), anchor))
            continue
        first = first_period(state, tx.now, anchor, tx.new_id("il_"))
        free = proration == "none" and any(line.proration for line in first.lines)
        if not free:
            lines.extend(first.lines)
        items.append(_moved(item, first.period, () if free else first.debits, anchor))
    return Rebill({**sub, "_items": items}, lines, True, items)


def rebill(tx: Transaction, old: Obj, new: Obj, *, proration: str, at: int, reset: bool) -> Rebill:
    """Turns ``old`` into ``new`` (whose items carry their old periods still) as of second ``at``.

    With ``reset`` the new cycle starts now, whatever second the credits count from. ``proration`` none leaves
    prorations out, but a cycle that starts again is still billed. Raises 400 when ``at`` lies outside the current
    period.
    """
    before, after = in_trial(old, tx.now), in_trial(new, tx.now)
    ended = before and not after
    changes = _changes(tx, old, new, at, before, after)
    try:
        results = prorate_all(
            [change for _, change in changes],
            at,
            mode=mode_of(new),
            reset_cycle=reset or ended,
            restart=tx.now if reset else at,
        )
    except BillingInputError as failure:
        raise _outside(failure) from None
    lines: list[Line] = []
    items: list[Obj] = []
    whole = False
    for (item, change), result in zip(changes, results, strict=True):
        fresh = [line for line in result.lines if not line.proration]
        whole = whole or bool(fresh)
        lines.extend(_ended_usage(tx, old, change, result, proration, tx.now if reset else at))
        lines.extend(result.lines if proration != "none" else fresh)
        if change.new is not None:
            items.append(_after(tx, item, change, result, new, proration, after, at))
    anchor = new["billing_cycle_anchor"]
    if reset:
        anchor = tx.now
    elif ended or (whole and mode_of(new) is BillingMode.CLASSIC):
        anchor = at
    if after and new["trial_end"] != old["trial_end"]:
        anchor = new["trial_end"]
    return Rebill(
        {**new, "billing_cycle_anchor": anchor, "_items": items}, lines, whole, items + old["_items"]
    )


def _changes(
    tx: Transaction, old: Obj, new: Obj, at: int, before: bool, after: bool
) -> list[tuple[Obj, ItemChange]]:
    olds = {item["id"]: item for item in old["_items"]}
    news = {item["id"]: item for item in new["_items"]}
    changes: list[tuple[Obj, ItemChange]] = []
    for identifier in [*olds, *(key for key in news if key not in olds)]:
        was, now = olds.get(identifier), news.get(identifier)
        item = now or was or {}
        full = None
        if was is not None:
            period = Period(was["current_period_start"], was["current_period_end"])
            full = _full_period(tx, was, period)
        else:
            period, full = _joined(tx, old, item, at, before or after)
        change = ItemChange(
            old=None if was is None else item_state(tx, old, was),
            new=None if now is None else item_state(tx, new, now),
            period=period,
            debits=() if was is None else unpack_debits(was),
            full_period=full,
            trial_before=before,
            trial_after=after,
            key=tx.new_id("il_"),
        )
        changes.append((item, change))
    return changes


def _full_period(tx: Transaction, item: Obj, period: Period) -> Period:
    """The whole interval that a first period, cut short by an anchor ahead, is part of."""
    if item["_anchor"] is None:
        return period
    full = period_at(item["_anchor"], Cadence.of(tx.need("price", item["price"])), period.start)
    return full if full.end == period.end else period


def _joined(tx: Transaction, sub: Obj, item: Obj, at: int, trial: bool) -> tuple[Period, Period | None]:
    """The period that an added item joins: its siblings' of the same interval, else the anchor's."""
    cadence = Cadence.of(tx.need("price", item["price"]))
    for sibling in sub["_items"]:
        if trial or Cadence.of(tx.need("price", sibling["price"])) == cadence:
            period = Period(sibling["current_period_start"], sibling["current_period_end"])
            return period, _full_period(tx, sibling, period)
    full = period_at(sub["billing_cycle_anchor"], cadence, at)
    return full, None


def _ended_usage(
    tx: Transaction, old: Obj, change: ItemChange, result: Proration, proration: str, at: int
) -> list[Line]:
    """Usage of a metered item whose period the change cuts short.

    A cycle that starts anew bills it in any case. Where the price goes away, flexible billing does unless the change
    prorates nothing, and classic billing never does (Stripe's documentation, "Update prices mid-cycle").
    """
    if change.old is None or change.trial_before or not is_metered(change.old.price):
        return []
    replaced = change.new is None or change.new.price["id"] != change.old.price["id"]
    if replaced or change.trial_after:
        if mode_of(old) is BillingMode.CLASSIC or proration == "none":
            return []
    elif result.period == change.period:
        return []
    item = next(item for item in old["_items"] if item["id"] == change.old.subscription_item)
    line = item_usage(tx, old, item, at, final=change.new is None)
    return [line] if line is not None and (line.amount or line.quantity) else []


def _after(
    tx: Transaction,
    item: Obj,
    change: ItemChange,
    result: Proration,
    new: Obj,
    proration: str,
    trial: bool,
    at: int,
) -> Obj:
    """The item with its period and outstanding debits after the change.

    A change that prorates nothing credits nothing, so what was outstanding before it still is.
    """
    if change.new is not None and (change.old is None or change.old.price["id"] != change.new.price["id"]):
        item = {**item, "_usage_from": at}
    if trial:
        start = item["current_period_start"] if change.trial_before and change.old is not None else tx.now
        return _moved(item, Period(start, new["trial_end"]), (), new["trial_end"])
    restarted = result.period != change.period
    anchor = result.period.start if restarted else item["_anchor"]
    if anchor is None:
        anchor = new["billing_cycle_anchor"]
    debits = result.debits
    if proration == "none":
        own = (result.debit,) if restarted and result.debit is not None else ()
        debits = (*change.debits, *own)
    return _moved(item, result.period, debits, anchor)


def unused_time(tx: Transaction, sub: Obj, end: int | None) -> Rebill:
    """Credit lines for what was debited ahead, when a subscription ends or pauses at ``end``.

    None credits each item from the start of its period. An incomplete subscription was never paid: its first invoice is
    voided, and nothing is given back.
    """
    if in_trial(sub, tx.now if end is None else end) or sub["status"] == "incomplete":
        return Rebill(sub, [], False, sub["_items"])
    lines: list[Line] = []
    items = []
    for item in sub["_items"]:
        period = Period(item["current_period_start"], item["current_period_end"])
        at = period.start if end is None else end
        if not period.start <= at <= period.end:
            items.append(item)
            continue
        state = item_state(tx, sub, item)
        debits = unpack_debits(item)
        change = ItemChange(state, None, period, debits, _full_period(tx, item, period))
        result = prorate(change, at, mode=mode_of(sub))
        lines.extend(result.lines)
        items.append({**item, "_debits": pack_debits(result.debits)})
    return Rebill({**sub, "_items": items}, lines, False, items)


def resumed(tx: Transaction, sub: Obj, at: int, proration: str) -> Rebill:
    """A paused subscription in the periods around now, its anchor unchanged, charged for the rest of them from ``at``.

    Time that is already debited, and was not credited by the pause, is not charged again. Raises 400 when ``at`` lies
    outside a period that is charged.
    """
    lines: list[Line] = []
    items = []
    for item in sub["_items"]:
        state = item_state(tx, sub, item)
        anchor = item["_anchor"] if item["_anchor"] is not None else sub["billing_cycle_anchor"]
        period = Period(item["current_period_start"], item["current_period_end"])
        if period.end <= tx.now:
            period = period_at(anchor, state.cadence, tx.now)
        debits = tuple(debit for debit in unpack_debits(item) if debit.outstanding(tx.now) is not None)
        if not debits and proration != "none":
            full = _full_period(tx, item, period)
            change = ItemChange(None, state, period, full_period=full, key=tx.new_id("il_"))
            result = _prorated(change, at, mode_of(sub))
            lines.extend(result.lines)
            debits = result.debits
        items.append(
            {**_moved(item, period, debits, anchor), "_previous_start": item["current_period_start"]}
        )
    return Rebill({**sub, "_items": items}, lines, False, items)


def _prorated(change: ItemChange, at: int, mode: BillingMode) -> Proration:
    try:
        return prorate(change, at, mode=mode)
    except BillingInputError as failure:
        raise _outside(failure) from None


def _outside(failure: BillingInputError) -> ApiError:
    return invalid(
        f"Invalid proration_date: it must be within the current billing period ({failure}).", "proration_date"
    )


def shortened(tx: Transaction, sub: Obj, end: int) -> Rebill:
    """A classic subscription that ends at ``end``, within its period: the cycle is cut there and the rest credited."""
    lines: list[Line] = []
    items = []
    for item in sub["_items"]:
        period = Period(item["current_period_start"], item["current_period_end"])
        if not in_trial(sub, end):
            state = item_state(tx, sub, item)
            change = ItemChange(state, None, period, unpack_debits(item), _full_period(tx, item, period))
            lines.extend(prorate(change, end, mode=mode_of(sub)).lines)
        items.append(_moved(item, Period(period.start, end), unpack_debits(item), end))
    return Rebill({**sub, "_items": items, "billing_cycle_anchor": end}, lines, False, items)


def renewed(tx: Transaction, sub: Obj, moment: int) -> tuple[Obj, list[Line]]:
    """The subscription with the items that are due at ``moment`` moved to their next period, and the lines of those.

    Licensed items are billed ahead, metered ones for the period that has ended.
    """
    lines: list[Line] = []
    items = []
    trial_over = sub["trial_end"] is not None and sub["trial_end"] <= moment and sub["status"] == "trialing"
    anchor = moment if trial_over else sub["billing_cycle_anchor"]
    for item in sub["_items"]:
        if item["current_period_end"] > moment:
            items.append(item)
            continue
        state = item_state(tx, sub, item, moment)
        own = anchor if trial_over or item["_anchor"] is None else item["_anchor"]
        start = item["current_period_end"]
        period = Period(start, next_period_end(own, state.cadence, start))
        debits = tuple(debit for debit in unpack_debits(item) if debit.outstanding(start) is not None)
        if is_metered(state.price):
            used = None if trial_over else item_usage(tx, sub, item, start)
            if used is not None:
                lines.append(used)
        else:
            key = tx.new_id("il_")
            lines.append(replace(period_line(state, period), key=key))
            debits = (*debits, full_debit(state, period, key))
        items.append({**_moved(item, period, debits, own), "_previous_start": item["current_period_start"]})
    return {**sub, "_items": items, "billing_cycle_anchor": anchor}, lines


def recurring_lines(tx: Transaction, sub: Obj) -> list[Line]:
    """One whole period of every licensed item, which is what the subscription costs when nothing changes."""
    lines = []
    for item in sub["_items"]:
        state = item_state(tx, sub, item)
        if is_metered(state.price):
            continue
        start = item["current_period_end"]
        own = item["_anchor"] if item["_anchor"] is not None else sub["billing_cycle_anchor"]
        lines.append(period_line(state, Period(start, next_period_end(own, state.cadence, start))))
    if not lines:
        raise refused("No upcoming invoices for customer", code="invoice_upcoming_none")
    return [replace(line, discountable=True) for line in lines]
