"""What a change of a subscription may credit: only what was paid, for the time that is left. Pure.

Stripe computes prorations from what was *billed*. An invoice that is still open, was voided or was refunded has been
billed and not paid, so a credit for it would give away money. This module holds each credit line of Stripe's preview
against the lines that it credits, and those against the money that paid for them.

Source: the decision in docs/decisions/0001-credit-only-what-was-paid.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from app.domain.ids import InvoiceId, SubscriptionItemId

_WHOLE, _NOTHING = Fraction(1), Fraction(0)
_PAID = "paid"


@dataclass(frozen=True, slots=True)
class CreditedLines:
    """The debits that a credit line names: invoice lines, or invoice items that were pending then.

    `invoice_id`: the invoice of the lines, None where invoice items are named.
    """

    invoice_id: InvoiceId | None
    line_ids: frozenset[str]

    def naming(self, items: Mapping[str, str | None]) -> CreditedLines:
        """Return the same debits, with invoice items for the lines that stand for them."""
        if self.line_ids.isdisjoint(items):
            return self
        return CreditedLines(None, frozenset(items.get(one) or one for one in self.line_ids))


@dataclass(frozen=True, slots=True)
class BilledLine:
    """A line of an invoice or of a preview, or a pending invoice item; `amount` is after discounts and before tax.

    Minor units; a credit is below 0. Periods are Unix seconds. `invoice_item_id`: the invoice item that it stands
    for, so a pending item can be told from the lines of a change. `credited`: None where Stripe names no debits.
    """

    id: str
    item_id: SubscriptionItemId | None
    amount: int
    period_start: int
    period_end: int
    invoice_item_id: str | None = None
    credited: CreditedLines | None = None

    @property
    def is_credit(self) -> bool:
        """Return True if the line gives money back."""
        return self.amount < 0

    def of_item(self, item_id: SubscriptionItemId | None) -> BilledLine:
        """Return the line with another subscription item."""
        return replace(self, item_id=item_id)


@dataclass(frozen=True, slots=True)
class Bill:
    """An invoice as a source of credit. `reversed`: refunds and credit notes; all of it with a dispute open or lost.

    Lines are whole. `amount_due` is after the balance. `total` and `reversed` are minor units, tax included.
    `finalizes_at`: Unix seconds, for a draft.
    `payments`: the payment intents or charges that paid it. `has_credit_notes`: of any kind.
    """

    id: InvoiceId
    created: int
    status: str
    total: int
    amount_due: int
    lines: Sequence[BilledLine]
    reversed: int = 0
    hosted_invoice_url: str | None = None
    finalizes_at: int | None = None
    payments: Sequence[str] = ()
    has_credit_notes: bool = False

    @property
    def paid_share(self) -> Fraction:
        """The share of the invoice that money or balance paid and that was not given back, 0 to 1."""
        if self.status != _PAID:
            return _NOTHING
        if self.reversed <= 0:
            return _WHOLE
        return max(_NOTHING, _WHOLE - Fraction(self.reversed, self.total)) if self.total > 0 else _NOTHING

    @property
    def shown_status(self) -> str:
        """Stripe's status, or `refunded` for a paid invoice whose money went back."""
        return "refunded" if self.status == _PAID and self.reversed > 0 else self.status


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a change credits and whether that was paid; amounts are minor units before tax.

    `nets`: the sum of the change's own lines by item. `crediting`: it lowers what an item costs, replaces a price or
    removes an item. `is_paid`: every credit rests on money. `unpaid`: the bill that is not, where one can be named.
    `credited`: the sum of all credit lines, 0 or more. `rests_on`: the invoices whose payment was asked for.
    """

    nets: Mapping[SubscriptionItemId | None, int]
    crediting: bool
    is_paid: bool
    unpaid: Bill | None
    credited: int
    rests_on: frozenset[InvoiceId]

    @property
    def net(self) -> int:
        """Return the sum of the change's own lines."""
        return sum(self.nets.values())

    @property
    def only_reduces(self) -> bool:
        """True where no item costs more than before, so a change without credit drops no charge."""
        return all(net <= 0 for net in self.nets.values())


def own_lines(preview: Iterable[BilledLine], pending: Collection[BilledLine]) -> list[BilledLine]:
    """Return the lines that the change itself makes, without the pending invoice items billed beside them.

    A credit of a pending item names the line by which the preview collects it: here it names the item.
    """
    known = {line.invoice_item_id for line in pending if line.invoice_item_id is not None}
    lines = list(preview)
    items = {line.id: line.invoice_item_id for line in lines if line.invoice_item_id in known}
    return [
        line if line.credited is None else replace(line, credited=line.credited.naming(items))
        for line in lines
        if line.id not in items
    ]


def judge(
    lines: Sequence[BilledLine],
    *,
    replaced: Collection[SubscriptionItemId],
    bills: Sequence[Bill],
    pending: Sequence[BilledLine],
    at: int,
) -> Judgement:
    """Hold the credits of a change's own `lines` against the money that paid for what they credit.

    Args:
        lines: the change's own lines, from a preview that prorates, see `own_lines`.
        replaced: items that are removed, or whose price is replaced. Their credits are judged whole, because a
            charge for another price would otherwise hide an unpaid credit.
        bills: the subscription's invoices of the running periods and every invoice that their credits name, oldest
            first.
        pending: the customer's invoice items that are on no invoice yet.
        at: the date of the change, Unix seconds.
    """
    by_item: dict[SubscriptionItemId | None, list[BilledLine]] = defaultdict(list)
    for line in lines:
        by_item[line.item_id].append(line)
    nets = {item: sum(line.amount for line in own) for item, own in by_item.items()}
    books = _Books(bills, pending, at)
    crediting, is_paid = bool(replaced), True
    for item, own in by_item.items():
        given_back = [line for line in own if line.is_credit]
        if item in replaced:
            exposure = -sum(line.amount for line in given_back)
        elif nets[item] < 0:
            crediting, exposure = True, -nets[item]
        else:
            continue
        allowed = books.allowed(given_back)
        # Stripe rounds each line by itself, to the minor unit. Where nothing was paid, there is nothing to round.
        if exposure > (allowed + len(own) if allowed > 0 else _NOTHING):
            is_paid = False
    credited = -sum(line.amount for line in lines if line.is_credit)
    return Judgement(nets, crediting, is_paid, None if is_paid else books.unpaid, credited, books.asked)


class _Books:
    """Follow credits back to the invoices that paid for them. Each item of each invoice is valued once."""

    def __init__(self, bills: Sequence[Bill], pending: Sequence[BilledLine], at: int) -> None:
        """`bills`: oldest first."""
        self._bills = bills
        self._pending = pending
        self._at = at
        self._by_id = {bill.id: bill for bill in bills}
        self._position = {line.id: place for place, bill in enumerate(bills) for line in bill.lines}
        self._position |= {line.id: len(bills) for line in pending}
        self._entries: list[tuple[InvoiceId | None, BilledLine]] = [
            *((bill.id, line) for bill in bills for line in bill.lines),
            *((None, line) for line in pending),
        ]
        self._places = {one: place for place, (_, line) in enumerate(self._entries) for one in _ids(line)}
        self._shares: dict[tuple[InvoiceId | None, SubscriptionItemId | None], Fraction] = {}
        self.unpaid: Bill | None = None

    @property
    def asked(self) -> frozenset[InvoiceId]:
        """Return the invoices whose payment was asked for."""
        return frozenset(invoice_id for invoice_id, _ in self._shares if invoice_id is not None)

    def allowed(self, lines: Sequence[BilledLine]) -> Fraction:
        """Return what these credit lines of one item may give back: what was paid, for the time that is left."""
        named = frozenset(
            line_id for line in lines if line.credited is not None for line_id in line.credited.line_ids
        )
        total = _NOTHING
        for credit in lines:
            for invoice_id, debit in self._debits(credit, self._at, named):
                total += debit.amount * self._share(invoice_id, debit.item_id) * _overlap(credit, debit)
        return total

    def _debits(
        self, credit: BilledLine, at: int, named: frozenset[str] = frozenset()
    ) -> list[tuple[InvoiceId | None, BilledLine]]:
        """Return the debits that a credit stands for. `named`: those that credits beside it name already."""
        if credit.credited is not None:
            places = sorted(self._places[one] for one in credit.credited.line_ids if one in self._places)
            return [self._entries[place] for place in places]
        found = self._uncredited(credit.item_id, at, self._position.get(credit.id))
        return [(invoice_id, line) for invoice_id, line in found if not _ids(line) & named]

    def _lines(self, invoice_id: InvoiceId | None) -> Sequence[BilledLine]:
        if invoice_id is None:
            return self._pending
        bill = self._by_id.get(invoice_id)
        return () if bill is None else bill.lines

    def _uncredited(
        self, item: SubscriptionItemId | None, at: int, before: int | None
    ) -> list[tuple[InvoiceId | None, BilledLine]]:
        """Return an item's charges whose period covers `at` and that no later change has credited.

        A change credits all charges of an item before it adds its own, so each credit line ends those before it.
        `before`: the place of the invoice that is asked for; None for a change that has not been made yet.
        """
        found: list[tuple[InvoiceId | None, BilledLine]] = []
        books: list[tuple[InvoiceId | None, Sequence[BilledLine]]]
        books = [(bill.id, bill.lines) for bill in self._bills[:before]]
        if before is None:
            books.append((None, self._pending))
        for invoice_id, lines in books:
            own = [line for line in lines if line.item_id == item]
            if any(line.is_credit for line in own):
                found = []
            found += [(invoice_id, line) for line in own if not line.is_credit]
        return [entry for entry in found if entry[1].period_start <= at < entry[1].period_end]

    def _share(self, invoice_id: InvoiceId | None, item: SubscriptionItemId | None) -> Fraction:
        """Return the paid share, 0 to 1, of an item's debits on one invoice, or among the pending items.

        An invoice of 12 may hold a debit of 1212 and a credit of 1200 for an invoice that nobody paid. Paying it
        paid 12 of the 1212, and no more. A pending item counts as paid: crediting it only cancels it.
        """
        key = (invoice_id, item)
        if key in self._shares:
            return self._shares[key]
        # An invoice that credits itself, which Stripe does not make, would have no beginning: it counts as unpaid.
        self._shares[key] = _NOTHING
        bill = None if invoice_id is None else self._by_id.get(invoice_id)
        share = _WHOLE if invoice_id is None else _NOTHING if bill is None else bill.paid_share
        if share < _WHOLE and self.unpaid is None:
            self.unpaid = bill
        if share > _NOTHING:
            share *= _WHOLE - self._hollow(invoice_id, item)
        self._shares[key] = share
        return share

    def _hollow(self, invoice_id: InvoiceId | None, item: SubscriptionItemId | None) -> Fraction:
        """Return the share, 0 to 1, of an item's debits that credits for unpaid lines set off on the same invoice.

        One invoice may hold the pending items of several changes, of which a later one credits debits of an earlier
        one: these cancel each other.
        """
        own = [line for line in self._lines(invoice_id) if line.item_id == item]
        names = {one for line in own if not line.is_credit for one in _ids(line)}
        debits, unpaid = Fraction(sum(line.amount for line in own if not line.is_credit)), _NOTHING
        for credit in own:
            if not credit.is_credit:
                continue
            if credit.credited is not None and not names.isdisjoint(credit.credited.line_ids):
                debits += credit.amount
            else:
                unpaid -= credit.amount * (_WHOLE - self._share_credited(credit))
        if unpaid <= 0:
            return _NOTHING
        return min(_WHOLE, unpaid / debits) if debits > 0 else _WHOLE

    def _share_credited(self, credit: BilledLine) -> Fraction:
        """Return how much of what an earlier credit gave back was paid, 0 to 1, as it is known today."""
        debits = self._debits(credit, credit.period_start)
        cost = sum(line.amount for _, line in debits)
        if cost <= 0:
            return _NOTHING
        paid = sum((line.amount * self._share(at, line.item_id) for at, line in debits), _NOTHING)
        return paid / cost


def _ids(line: BilledLine) -> frozenset[str]:
    return frozenset(one for one in (line.id, line.invoice_item_id) if one is not None)


def _overlap(credit: BilledLine, debit: BilledLine) -> Fraction:
    """Return the share of the debit's time that the credit gives back, 0 to 1."""
    whole = debit.period_end - debit.period_start
    left = min(credit.period_end, debit.period_end) - max(credit.period_start, debit.period_start)
    return min(_WHOLE, Fraction(max(0, left), whole)) if whole > 0 else _NOTHING
