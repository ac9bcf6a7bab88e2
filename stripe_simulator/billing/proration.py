"""Second-exact prorations of changed subscription items, as credit and charge lines.

Source: Stripe's documentation, "Prorations" and "Compare classic and flexible billing mode".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from stripe_simulator.billing.amounts import is_metered
from stripe_simulator.billing.discounts import covers, exact_net, net_amount, wording
from stripe_simulator.billing.lines import ItemState, Line, free_line, item_line, period_line
from stripe_simulator.billing.money import BillingInputError, round_half_up, share
from stripe_simulator.billing.periods import Period, next_period_end, period_at

# Spelled out because strftime follows the process's locale.
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


class BillingMode(StrEnum):
    """`classic` credits by the price list, `flexible` by what was really debited."""

    CLASSIC = "classic"
    FLEXIBLE = "flexible"


@dataclass(frozen=True, slots=True)
class Debit:
    """One charge of an item, net of discounts, in minor units, and the time that it is for.

    `key` is the id of the invoice line that it stands on. Credits give it back from its end: `credited_from` is the
    second from which that has happened (None: nothing was credited), so what is outstanding ends there.
    """

    amount: int
    period: Period
    key: str | None = None
    credited_from: int | None = None

    @property
    def outstanding_until(self) -> int:
        return self.period.end if self.credited_from is None else self.credited_from

    def outstanding(self, at: int) -> Period | None:
        """The time from `at` on that no credit covers yet; None when there is none."""
        start = max(at, self.period.start)
        return Period(start, self.outstanding_until) if start < self.outstanding_until else None

    def credit(self, at: int) -> int:
        """What giving back the outstanding time from `at` on is worth; all credits add up to at most `amount`."""
        if self.amount < 0:
            raise BillingInputError(f"a debit is 0 or more, not {self.amount}")
        left = self.outstanding(at)
        if left is None:
            return 0
        whole = self.period.seconds
        given = share(self.amount, self.period.end - left.end, whole)
        return share(self.amount, self.period.end - left.start, whole) - given

    def credited(self, at: int) -> Debit:
        """The debit after its time from `at` on was credited."""
        left = self.outstanding(at)
        return self if left is None else replace(self, credited_from=left.start)


@dataclass(frozen=True, slots=True)
class ItemChange:
    """One item before (`old`) and after (`new`) an update; None stands for an item added or removed.

    `period` is the item's current billing period; for an added item, the one that it joins. `full_period` is the
    whole interval around it where the billing period is cut short by an anchor (default: `period`). `debits` are the
    item's outstanding ones; flexible mode gives one credit for each, and none without them. `key` is the new charge's.
    """

    old: ItemState | None
    new: ItemState | None
    period: Period
    debits: tuple[Debit, ...] = ()
    full_period: Period | None = None
    trial_before: bool = False
    trial_after: bool = False
    key: str | None = None

    @property
    def interval_changes(self) -> bool:
        return self.old is not None and self.new is not None and self.old.cadence != self.new.cadence

    @property
    def is_noop(self) -> bool:
        """Whether nothing that triggers a proration differs: a new discount or product name does not."""
        if self.old is None or self.new is None:
            return self.old is self.new
        same_terms = (self.old.price["id"], self.old.quantity) == (self.new.price["id"], self.new.quantity)
        return same_terms and self.trial_before == self.trial_after


@dataclass(frozen=True, slots=True)
class Proration:
    """The lines of one item's change, its billing period afterwards, and the debits that are outstanding then.

    `debit` is the one of `debits` that the change itself charges.
    """

    lines: tuple[Line, ...]
    period: Period
    debits: tuple[Debit, ...] = ()
    debit: Debit | None = None

    @property
    def amount(self) -> int:
        """Net of all lines, minor units; negative is a credit."""
        return sum(line.amount for line in self.lines)


def prorate(
    change: ItemChange, at: int, *, mode: BillingMode, reset_cycle: bool = False, restart: int | None = None
) -> Proration:
    """Credit for the old state's unused time and charge for the new state's remaining time, from second `at` on.

    When the interval changes, or with `reset_cycle`, a new full period starts at `restart` (`at`, unless given) and is
    billed by an ordinary line. Metered prices give no lines, and neither does time in a trial, but that flexible mode
    tells of a change within a trial by a line of 0. Raises BillingInputError when `at` is outside the period.
    """
    change.period.remaining(at)
    starts_over = (
        (reset_cycle or change.interval_changes) and change.new is not None and not change.trial_after
    )
    if change.is_noop and not starts_over:
        return Proration((), change.period, change.debits)
    lines = list(_credit(change, at, mode))
    period, debit = change.period, None
    debits = tuple(kept for old in change.debits if (kept := old.credited(at)).outstanding(0) is not None)
    if change.new is not None:
        if starts_over:
            start = at if restart is None else restart
            period = Period(start, next_period_end(start, change.new.cadence, start))
        if change.trial_before and change.trial_after and mode is BillingMode.FLEXIBLE:
            lines.extend(_free(change.new, Period(at, period.end)))
        if not (change.trial_after or is_metered(change.new.price)):
            charge, debit = _charge(change.new, change, period, at, whole=starts_over)
            lines.append(charge)
            debits = (*debits, debit)
    return Proration(tuple(lines), period, debits, debit)


def prorate_all(
    changes: Sequence[ItemChange],
    at: int,
    *,
    mode: BillingMode,
    reset_cycle: bool = False,
    restart: int | None = None,
) -> tuple[Proration, ...]:
    """Prorations of all items of a subscription, in their order; unchanged items belong in the list too.

    In classic mode all items share one cycle: it starts again for every item when one item's interval changes, and when
    a subscription that cost nothing begins to cost something.
    """
    together = mode is BillingMode.CLASSIC and (
        any(change.interval_changes for change in changes) or _begins_to_cost(changes)
    )
    reset = reset_cycle or together
    return tuple(prorate(change, at, mode=mode, reset_cycle=reset, restart=restart) for change in changes)


def _begins_to_cost(changes: Sequence[ItemChange]) -> bool:
    if any(is_metered(state.price) for change in changes if (state := change.old) is not None):
        return False
    before = [change.old.exact_amount for change in changes if change.old is not None]
    after = [
        change.new.exact_amount
        for change in changes
        if change.new is not None and change.new.quantity is not None
    ]
    return bool(before) and not any(before) and any(after)


def first_period(item: ItemState, start: int, anchor: int, key: str | None = None) -> Proration:
    """The first charge of an item from `start`: a full period, or the part up to an anchor that lies ahead."""
    full = period_at(anchor, item.cadence, start)
    if is_metered(item.price):
        return Proration((), Period(start, full.end))
    if full.start == start:
        line = replace(period_line(item, full), key=key)
        debit = Debit(_net(item, item.full_amount), full, key)
        return Proration((line,), full, (debit,), debit)
    period = Period(start, full.end)
    change = ItemChange(old=None, new=item, period=period, full_period=full, key=key)
    return prorate(change, start, mode=BillingMode.CLASSIC)


def _credit(change: ItemChange, at: int, mode: BillingMode) -> tuple[Line, ...]:
    old = change.old
    if old is None or change.trial_before or is_metered(old.price):
        return ()
    if mode is BillingMode.FLEXIBLE:
        return tuple(
            replace(
                item_line(old, -debit.credit(at), _wording("Unused", old, at), period, proration=True),
                credits=() if debit.key is None else (debit.key,),
            )
            for debit in change.debits
            if debit.amount != 0 and (period := debit.outstanding(at)) is not None
        )
    credit = _prorated(old, change, change.period, at)
    period = Period(at, change.period.end)
    return (item_line(old, -credit, _wording("Unused", old, at), period, proration=True),)


def _free(item: ItemState, period: Period) -> tuple[Line, ...]:
    """The line of 0 that flexible mode makes for an item that was changed within a trial."""
    if is_metered(item.price):
        return ()
    return (replace(free_line(item, period), proration=True, discountable=False),)


def _charge(
    item: ItemState, change: ItemChange, period: Period, at: int, *, whole: bool
) -> tuple[Line, Debit]:
    if whole:
        full = replace(period_line(item, period), key=change.key)
        return full, Debit(_net(item, item.full_amount), period, change.key)
    amount = _prorated(item, change, period, at)
    rest = Period(at, period.end)
    line = item_line(item, amount, _wording("Remaining", item, at), rest, proration=True)
    return replace(line, key=change.key), Debit(amount, rest, change.key)


def _prorated(item: ItemState, change: ItemChange, period: Period, at: int) -> int:
    full = change.full_period or change.period
    if full.seconds == 0:
        raise BillingInputError("cannot prorate over an empty period")
    # Rounded once, at the end: 12.5 a day for half a day is 6.25, not half of 13.
    net = exact_net(item.exact_amount, item.product_id, item.currency, item.discounts)
    return round_half_up(net * period.remaining(at) / full.seconds)


def _net(item: ItemState, amount: int) -> int:
    return net_amount(amount, item.product_id, item.currency, item.discounts)


def _wording(kind: str, item: ItemState, at: int) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    day = f"{moment.day:02d} {_MONTHS[moment.month - 1]} {moment.year}"
    count = "" if item.quantity == 1 else f"{item.quantity} × "
    return f"{kind} time on {count}{item.product_name}{_discount_wording(item)} after {day}"


def _discount_wording(item: ItemState) -> str:
    coupons = [discount.coupon for discount in item.discounts if covers(discount.coupon, item.product_id)]
    parts = [wording(coupon, item.currency) for coupon in coupons]
    return f" (with {', '.join(parts)})" if parts else ""
