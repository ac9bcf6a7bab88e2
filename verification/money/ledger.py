"""A model of money of its own: which line paid for which time, what has credited it, and what of it was paid.

It is built from the stand-in's log alone and shares no code with the service. The rule that it holds the service to:
a credit line may give back the unused time of what was paid, and no more. A line counts as paid only in the share
that money paid. A raise that sets an unpaid line off pays its own line only by the difference; the ledger follows this
chain back, however long it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from verification.money.journal import Group, Journal, Json

_SETTLED_DISPUTES = frozenset({"won", "warning_closed", "prevented"})
_DEAD_REFUNDS = frozenset({"failed", "canceled"})


@dataclass(slots=True, eq=False)
class Line:
    """An invoice line, or an invoice item that waits for an invoice. Amounts are minor units after discounts.

    `start` and `end` are the time that it covers, in Unix seconds. `invoice` is None while it is pending; `invoiced`
    and `removed` are the versions that put it on one, or took it away. `credits`: what a credit line gives back;
    `credited_by`: the credit lines that give this one back. `held`: it belongs to an update that took no effect before
    its invoice was paid.
    """

    key: str
    group: int
    subscription: str
    item: str
    amount: int
    start: int
    end: int
    invoice: str | None
    invoiced: int = 0
    removed: int | None = None
    held: bool = False
    credits: list[Line] = field(default_factory=list)
    credited_by: list[Line] = field(default_factory=list)

    def invoice_at(self, until: int) -> str | None:
        """Its invoice once version `until` was written."""
        return self.invoice if self.invoiced <= until else None

    def is_removed(self, until: int) -> bool:
        return self.removed is not None and self.removed <= until


@dataclass(frozen=True, slots=True)
class ItemChange:
    """What one request made of one subscription item. `replaced`: another price, or the item is gone.

    `amount`: what it gives back, in minor units: the net credit, or for a replaced item the sum of its credit lines.
    `limit`: the most that was paid for and not used at the request's time.
    """

    subscription: str
    customer: str
    item: str
    replaced: bool
    amount: int
    limit: float
    tolerance: int
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A request of the service that made lines; `group` is its log entry.

    `given`: what it gives back in all, minor units: its credit, once it is set off against what others have charged
    on the same invoice, or for the next one.
    """

    group: Group
    items: tuple[ItemChange, ...]
    given: int


class Ledger:
    """`changes`: the service's requests that made lines, in order. `patience`: seconds that a date may lie back."""

    def __init__(self, journal: Journal, *, patience: float) -> None:
        self._journal = journal
        self._patience = patience
        self._lines: dict[str, Line] = {}
        self._pending: dict[str, Line] = {}
        self._of_item: dict[str, list[Line]] = {}
        self._on_invoice: dict[str, list[Line]] = {}
        self.changes: list[Change] = []
        for number, group in enumerate(journal.groups()):
            self._take(number, group)

    # ------------------------------------------------------------------------------------------------ reading

    def _take(self, number: int, group: Group) -> None:
        fresh = [*self._new_items(number, group), *self._new_lines(number, group)]
        own: dict[str, list[Line]] = {}
        for line in fresh:
            line.held = self._is_held(line, group.last)
            own.setdefault(line.item, []).append(line)
        for item, lines in own.items():
            # A change voids the invoice of an update that waits, before it is computed: until its last version.
            self._name_credits(item, [line for line in lines if line.amount < 0], number, group.last)
        if group.actor == "api" and own:
            found = tuple(self._changed(group, item, lines) for item, lines in own.items())
            self.changes.append(Change(group, found, self._given(group, fresh)))

    def _new_items(self, number: int, group: Group) -> Iterator[Line]:
        for version in group.of("invoiceitem"):
            known = self._pending.get(version.id)
            if version.state is None:
                if known is not None:
                    known.removed = version.number
                continue
            if known is not None:
                continue
            item = _item_of_pending(version.state)
            if item is None:
                continue
            line = self._line(
                version.id, number, item, version.state["amount"], version.state["period"], None
            )
            self._pending[version.id] = line
            yield line

    def _new_lines(self, number: int, group: Group) -> Iterator[Line]:
        for version in group.of("invoice"):
            if version.state is None:
                continue
            for row in version.state["lines"]["data"]:
                if row["id"] in self._lines:
                    continue
                net = row["amount"] - sum(entry["amount"] for entry in row.get("discount_amounts") or ())
                source, item = _parents(row)
                pending = None if source is None else self._pending.get(source)
                if pending is not None:
                    pending.invoice, pending.invoiced, pending.amount = version.id, version.number, net
                    self._lines[row["id"]] = pending
                    self._on_invoice.setdefault(version.id, []).append(pending)
                    continue
                if item is None:
                    continue
                line = self._line(row["id"], number, item, net, row["period"], version.id)
                self._lines[row["id"]] = line
                self._on_invoice.setdefault(version.id, []).append(line)
                yield line

    def _line(
        self,
        key: str,
        number: int,
        item: tuple[str, str],
        amount: int,
        period: Json,
        invoice: str | None,
    ) -> Line:
        line = Line(key, number, item[0], item[1], amount, period["start"], period["end"], invoice)
        self._of_item.setdefault(item[1], []).append(line)
        return line

    def _name_credits(self, item: str, given: list[Line], number: int, until: int) -> None:
        """A credit gives back every charge of its item that covers its date and that nothing else gave back."""
        if not given:
            return
        date = min(line.start for line in given)
        open_charges = [
            line
            for line in self._of_item.get(item, [])
            if line.amount > 0
            and line.group < number
            and line.end > date
            and not line.is_removed(until)
            and (not line.held or self._is_paid(line, until))
            and not any(self._stands(credit, until) for credit in line.credited_by)
        ]
        for credit in given:
            credit.credits = open_charges
            for charge in open_charges:
                charge.credited_by.append(credit)

    def _stands(self, line: Line, until: int) -> bool:
        """False once it was removed or its invoice is void, as of a change that was never paid."""
        if line.is_removed(until):
            return False
        invoice_id = line.invoice_at(until)
        if invoice_id is None:
            return True
        invoice = self._journal.state("invoice", invoice_id, until)
        return invoice is not None and invoice["status"] != "void"

    # ------------------------------------------------------------------------------------------------ judging

    def _changed(self, group: Group, item: str, lines: list[Line]) -> ItemChange:
        until = group.first - 1
        subscription = lines[0].subscription
        before = self._journal.state("subscription", subscription, until)
        after = self._journal.state("subscription", subscription, group.last) or {}
        replaced = before is not None and _price(before, item) != _price(after, item, planned=True)
        credited = {id(charge): charge for line in lines for charge in line.credits}.values()
        given = -sum(line.amount for line in lines if line.amount < 0 or not replaced)
        return ItemChange(
            subscription=subscription,
            customer=str(after.get("customer")),
            item=item,
            replaced=replaced,
            amount=max(0, given),
            limit=sum(self._unused(charge, group.at, until) for charge in credited),
            tolerance=len(lines) + len(credited),
            lines=tuple(lines),
        )

    def _given(self, group: Group, own: list[Line]) -> int:
        """The change's credit, less the charges of others that it cancels; their credits are theirs."""
        mine = {id(line) for line in own}
        places = {line.invoice for line in own}
        others: dict[str, int] = defaultdict(int)
        for item, lines in self._of_item.items():
            for line in lines:
                beside = line.invoice_at(group.last) in places and not line.is_removed(group.last)
                if line.subscription == own[0].subscription and beside and id(line) not in mine:
                    others[item] += line.amount
        charged = sum(max(0, amount) for amount in others.values())
        return max(0, -sum(line.amount for line in own) - charged)

    def _unused(self, charge: Line, at: float, until: int) -> float:
        date = max(at - self._patience, charge.start)
        if charge.end <= date or charge.end <= charge.start:
            return 0.0
        return self.paid(charge, until) * (charge.end - date) / (charge.end - charge.start)

    def paid(self, charge: Line, until: int) -> float:
        """What money has paid of a charge once version `until` was written, in minor units: 0 to its amount."""
        invoice_id = charge.invoice_at(until)
        share = 1.0 if invoice_id is None else self._settled_share(invoice_id, until)
        if charge.is_removed(until) or charge.amount <= 0 or not share:
            return 0.0
        set_off = [
            line
            for line in self._of_item[charge.item]
            if line.group == charge.group and line.amount < 0 and line.invoice_at(until) == invoice_id
        ]
        unpaid = sum(-line.amount * (1.0 - self._paid_share(line.credits, until)) for line in set_off)
        return max(0.0, charge.amount - unpaid) * share

    def _paid_share(self, charges: Iterable[Line], until: int) -> float:
        """Of what a credit line gave back, the share that was paid. Without any such line nothing was."""
        found = list(charges)
        total = sum(charge.amount for charge in found)
        return sum(self.paid(charge, until) for charge in found) / total if total else 0.0

    def _settled_share(self, invoice_id: str, until: int) -> float:
        """0 unless the invoice is paid; less what was refunded or noted as a credit; 0 with a dispute."""
        invoice = self._journal.state("invoice", invoice_id, until)
        if invoice is None or invoice["status"] != "paid":
            return 0.0
        back, disputed = returned(self._journal, invoice_id, until)
        if disputed or not back:
            return 0.0 if disputed else 1.0
        # Cash and balance together paid the total; what went back is a share of that.
        whole = max(int(invoice["total"]), int(invoice["amount_paid"]), 1)
        return max(0.0, 1.0 - back / whole)

    def stands(self, change: Change) -> bool:
        """Did the change take effect, in the end? One whose invoice was never paid and is void did not."""
        lines = [line for item in change.items for line in item.lines]
        return any(
            line.invoice is None
            or (self._journal.state("invoice", line.invoice) or {}).get("status") in ("paid", "draft")
            or not self._is_held(line)
            for line in lines
            if self._stands(line, self._journal.last)
        )

    def _is_paid(self, line: Line, until: int) -> bool:
        invoice_id = line.invoice_at(until)
        invoice = None if invoice_id is None else self._journal.state("invoice", invoice_id, until)
        return invoice is not None and invoice["status"] == "paid"

    def _is_held(self, line: Line, until: int | None = None) -> bool:
        """Does an update wait for the invoice of this line, once version `until` was written?"""
        version = self._journal.last if until is None else until
        subscription = self._journal.state("subscription", line.subscription, version) or {}
        return (
            subscription.get("pending_update") is not None
            and subscription.get("latest_invoice") == line.invoice
        )


def returned(journal: Journal, invoice_id: str, until: int) -> tuple[int, bool]:
    """Minor units that went back to the payer of an invoice, and whether a dispute is open or lost."""
    back, disputed = 0, False
    intents, charges = set[str](), set[str]()
    for payment in journal.all("invoice_payment", until):
        if payment["invoice"] == invoice_id:
            intents.add(str(payment["payment"].get("payment_intent")))
            charges.add(str(payment["payment"].get("charge")))
    for refund in journal.all("refund", until):
        if refund.get("payment_intent") in intents or refund.get("charge") in charges:
            back += 0 if refund["status"] in _DEAD_REFUNDS else refund["amount"]
    for dispute in journal.all("dispute", until):
        if dispute.get("payment_intent") in intents or dispute.get("charge") in charges:
            disputed = disputed or dispute["status"] not in _SETTLED_DISPUTES
    for note in journal.all("credit_note", until):
        if note["invoice"] == invoice_id and note.get("status") != "void":
            back += max(0, note.get("post_payment_amount") or 0) - _refunded(note)
    return back, disputed


def _refunded(note: Json) -> int:
    """The part of a credit note that a refund object tells of already."""
    return sum(int(entry.get("amount_refunded") or 0) for entry in note.get("refunds") or ())


def _parents(row: Json) -> tuple[str | None, tuple[str, str] | None]:
    """The invoice item that a line comes from, and the subscription and item that it bills."""
    parent: Any = row.get("parent") or {}
    details = parent.get("subscription_item_details") or {}
    if details.get("subscription_item"):
        return details.get("invoice_item"), (str(details.get("subscription")), details["subscription_item"])
    other = parent.get("invoice_item_details") or {}
    return other.get("invoice_item"), None


def _item_of_pending(state: Json) -> tuple[str, str] | None:
    details = ((state.get("parent") or {}).get("subscription_details")) or {}
    item = details.get("subscription_item")
    return None if item is None else (str(details["subscription"]), str(item))


def _price(subscription: Json, item: str, *, planned: bool = False) -> str | None:
    """The price of an item; `planned`: as an update that waits for its payment will leave it."""
    if subscription.get("status") in ("canceled", "incomplete_expired"):
        return None
    items = subscription.get("items", {}).get("data", [])
    held = (subscription.get("pending_update") or {}).get("subscription_items") if planned else None
    for entry in held or items:
        if entry["id"] == item:
            return str(entry["price"]["id"])
    return None
