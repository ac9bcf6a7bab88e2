"""What a credit may give back: the money behind the lines that it credits, for the time that is left."""

from collections.abc import Sequence

import pytest

from app.domain.credits import Bill, BilledLine, CreditedLines, Judgement, judge, own_lines
from app.domain.ids import InvoiceId, SubscriptionItemId

SEATS = SubscriptionItemId("si_seats")
OTHER = SubscriptionItemId("si_other")
PERIOD = 1000


def line(
    name: str,
    amount: int,
    *,
    credits: tuple[str, str] | None = None,
    since: int = 0,
    until: int = PERIOD,
    item: SubscriptionItemId = SEATS,
) -> BilledLine:
    """A line; `credits` names an invoice and its line."""
    credited = None if credits is None else CreditedLines(InvoiceId(credits[0]), frozenset({credits[1]}))
    return BilledLine(name, item, amount, since, until, credited=credited)


def bill(name: str, *lines: BilledLine, status: str = "paid", created: int = 0, reversed_: int = 0) -> Bill:
    total = sum(one.amount for one in lines)
    return Bill(InvoiceId(name), created, status, total, total, lines, reversed=reversed_)


def judged(
    lines: Sequence[BilledLine],
    *bills: Bill,
    pending: Sequence[BilledLine] = (),
    replaced: Sequence[SubscriptionItemId] = (),
    at: int = 500,
) -> Judgement:
    return judge(lines, replaced=replaced, bills=bills, pending=pending, at=at)


def lowered(debit: str, whole: int, left: int, *, invoice: str = "in_1", at: int = 500) -> list[BilledLine]:
    """The lines of a reduction half-way: all is credited and the rest is charged."""
    return [
        line("c", -whole, credits=(invoice, debit), since=at),
        line("d", left, since=at),
    ]


@pytest.mark.parametrize(
    ("status", "is_paid"),
    [("paid", True), ("open", False), ("draft", False), ("void", False), ("uncollectible", False)],
)
def test_a_credit_rests_on_the_status_of_its_invoice(status: str, is_paid: bool) -> None:
    renewal = bill("in_1", line("a", 1200), status=status)
    found = judged(lowered("a", 600, 6), renewal)
    assert (found.crediting, found.is_paid, found.net) == (True, is_paid, -594)
    assert found.unpaid == (None if is_paid else renewal)


@pytest.mark.parametrize(("status", "is_paid"), [("paid", True), ("open", False)])
def test_rounding_gives_no_credit_when_nothing_was_paid(status: str, is_paid: bool) -> None:
    """M1: near the end of a period each seat is worth a cent or two, one call after the other."""
    renewal = bill("in_1", line("a", 1200), status=status)
    assert judged(lowered("a", 2, 1, at=999), renewal, at=999).is_paid == is_paid


def test_a_raise_is_not_crediting_when_its_net_is_a_charge() -> None:
    renewal = bill("in_1", line("a", 1200), status="open")
    found = judged(lowered("a", 600, 606), renewal)
    assert (found.crediting, found.is_paid, found.net) == (False, True, 6)


def test_a_replaced_price_is_judged_by_its_credit_alone_when_the_net_is_a_charge() -> None:
    renewal = bill("in_1", line("a", 1200), status="open")
    found = judged(lowered("a", 600, 6000), renewal, replaced=[SEATS])
    assert (found.crediting, found.is_paid, found.only_reduces) == (True, False, False)


def test_another_item_does_not_hide_an_unpaid_credit() -> None:
    renewal = bill("in_1", line("a", 1200), status="open")
    lines = [*lowered("a", 600, 6), line("e", 5000, item=OTHER)]
    found = judged(lines, renewal)
    assert (found.is_paid, found.only_reduces, found.net) == (False, False, 4406)


@pytest.mark.parametrize(("reversed_", "is_paid"), [(0, True), (30, False), (1200, False), (5000, False)])
def test_money_that_went_back_lowers_what_may_be_credited(reversed_: int, is_paid: bool) -> None:
    renewal = bill("in_1", line("a", 1200), reversed_=reversed_)
    assert judged(lowered("a", 600, 6), renewal).is_paid is is_paid


def test_a_small_reduction_is_paid_when_half_of_the_invoice_went_back() -> None:
    """Half of 1,200 is paid, for half of the time: 300 may be credited."""
    renewal = bill("in_1", line("a", 1200), reversed_=600)
    assert judged(lowered("a", 600, 300), renewal).is_paid
    assert not judged(lowered("a", 600, 290), renewal).is_paid


def test_the_paid_share_follows_the_chain() -> None:
    """100 seats are unpaid, a raise to 101 was paid: it paid for 12 of the 1,212 that it debits."""
    renewal = bill("in_1", line("a", 1200), status="open")
    raised = bill("in_2", line("b", -1200, credits=("in_1", "a")), line("c", 1212), created=1)
    assert not judged(lowered("c", 606, 6, invoice="in_2"), renewal, raised).is_paid
    assert judged(lowered("c", 606, 600, invoice="in_2"), renewal, raised).is_paid
    paid = bill("in_1", line("a", 1200))
    assert judged(lowered("c", 606, 6, invoice="in_2"), paid, raised).is_paid


def test_what_was_credited_once_is_not_credited_by_a_third_invoice() -> None:
    renewal = bill("in_1", line("a", 1200), status="open")
    raised = bill("in_2", line("b", -1200, credits=("in_1", "a")), line("c", 1212), created=1)
    back = bill("in_3", line("e", -1212, credits=("in_2", "c")), line("f", 1200), created=2)
    assert not judged(lowered("f", 600, 594, invoice="in_3"), renewal, raised, back).is_paid


def test_a_credit_for_more_than_was_paid_fails_though_the_invoice_is_paid() -> None:
    """Classic billing credits by the price list of today; the lines cost half of it under a discount."""
    renewal = bill("in_1", line("a", 600))
    found = judged(lowered("a", 600, 6), renewal)
    assert (found.is_paid, found.unpaid) == (False, None)


def test_time_that_is_over_is_not_credited() -> None:
    renewal = bill("in_1", line("a", 1200))
    assert not judged(lowered("a", 1200, 12), renewal).is_paid


def test_a_credit_that_names_nothing_stands_for_the_open_charges_of_its_item() -> None:
    renewal = bill("in_1", line("a", 1200), line("x", 900, item=OTHER))
    unnamed = [line("c", -600, since=500), line("d", 6, since=500)]
    assert judged(unnamed, renewal).is_paid
    assert not judged(unnamed, bill("in_1", line("a", 1200), status="open")).is_paid
    assert not judged(unnamed).is_paid


def test_a_later_credit_ends_the_charges_before_it() -> None:
    renewal = bill("in_1", line("a", 1200))
    lowered_before = bill("in_2", line("b", -960, since=200), line("c", 80, since=200), created=1)
    unnamed = [line("d", -600, since=500), line("e", 6, since=500)]
    assert not judged(unnamed, renewal, lowered_before).is_paid
    assert judged([line("d", -50, since=500)], renewal, lowered_before, replaced=[SEATS]).is_paid


def test_an_unnamed_chain_is_followed() -> None:
    renewal = bill("in_1", line("a", 1200), status="open")
    raised = bill("in_2", line("b", -1200), line("c", 1212), created=1)
    found = judged([line("d", -606, since=500), line("e", 6, since=500)], renewal, raised)
    assert (found.is_paid, found.unpaid) == (False, renewal)


def test_a_pending_charge_may_be_cancelled() -> None:
    """Crediting a debit that no invoice has collected gives nothing back."""
    debit = BilledLine("ii_1", SEATS, 600, 0, PERIOD, invoice_item_id="ii_1")
    credit = BilledLine("c", SEATS, -300, 500, PERIOD, credited=CreditedLines(None, frozenset({"ii_1"})))
    assert judged([credit], pending=[debit]).is_paid


def test_a_pending_charge_that_set_off_an_unpaid_one_is_followed() -> None:
    renewal = bill("in_1", line("a", 1200), status="open")
    pending = [
        BilledLine(
            "ii_1", SEATS, -1200, 0, PERIOD, "ii_1", CreditedLines(InvoiceId("in_1"), frozenset({"a"}))
        ),
        BilledLine("ii_2", SEATS, 1212, 0, PERIOD, "ii_2"),
    ]
    credit = BilledLine("c", SEATS, -606, 500, PERIOD, credited=CreditedLines(None, frozenset({"ii_2"})))
    found = judged([credit, line("d", 6, since=500)], renewal, pending=pending)
    assert (found.is_paid, found.unpaid) == (False, renewal)


def test_an_invoice_item_is_found_on_the_invoice_that_collected_it() -> None:
    collected = BilledLine("il_1", SEATS, 1200, 0, PERIOD, invoice_item_id="ii_1")
    credit = BilledLine("c", SEATS, -600, 500, PERIOD, credited=CreditedLines(None, frozenset({"ii_1"})))
    assert judged([credit], bill("in_1", collected), replaced=[SEATS]).is_paid
    assert not judged([credit], bill("in_1", collected, status="open"), replaced=[SEATS]).is_paid


@pytest.mark.parametrize(("status", "is_paid"), [("paid", True), ("open", False)])
def test_changes_of_one_second_are_followed_together(status: str, is_paid: bool) -> None:
    """Two reductions on one invoice at the same second: the second credits the first one's debit."""
    renewal = bill("in_1", line("a", 1200), status=status)
    both = bill(
        "in_2",
        line("b", -600, credits=("in_1", "a"), since=500),
        line("c", 300, since=500),
        line("d", -300, credits=("in_2", "c"), since=500),
        line("e", 200, since=500),
        created=1,
    )
    again = [line("f", -200, credits=("in_2", "e"), since=500), line("g", 20, since=500)]
    assert judged(again, renewal, both).is_paid is is_paid


def test_invoices_that_credit_each_other_count_as_unpaid() -> None:
    """Stripe makes no such circle; it would have no beginning."""
    one = bill("in_1", line("a", -100, credits=("in_2", "d")), line("b", 50))
    other = bill("in_2", line("c", -100, credits=("in_1", "b"), since=1), line("d", 50, since=1), created=1)
    assert not judged(lowered("b", 25, 1, at=500), one, other).is_paid


def test_a_free_item_may_be_replaced() -> None:
    found = judged([line("d", 600, since=500)], replaced=[SEATS])
    assert (found.crediting, found.is_paid) == (True, True)


def test_a_credit_of_a_pending_item_names_the_item_though_the_preview_names_its_line() -> None:
    waiting = BilledLine("ii_1", SEATS, 600, 0, PERIOD, invoice_item_id="ii_1")
    collected = BilledLine("il_9", None, 600, 0, PERIOD, invoice_item_id="ii_1")
    credit = line("c", -300, credits=("upcoming_in_1", "il_9"), since=500)
    lines = own_lines([collected, credit], [waiting])
    assert [one.credited for one in lines] == [CreditedLines(None, frozenset({"ii_1"}))]
    assert judged(lines, pending=[waiting], replaced=[SEATS]).is_paid


def test_pending_items_are_not_lines_of_the_change() -> None:
    waiting = BilledLine("ii_1", SEATS, -50, 0, PERIOD, invoice_item_id="ii_1")
    collected = BilledLine("il_9", None, -50, 0, PERIOD, invoice_item_id="ii_1")
    own = line("d", 10)
    assert own_lines([collected, own], [waiting]) == [own]


def test_several_changes_that_are_pending_together_are_followed_one_by_one() -> None:
    """A reduction that is billed later leaves pending items, and the next one credits those."""

    def item(name: str, amount: int, since: int, credits: CreditedLines | None = None) -> BilledLine:
        return BilledLine(name, SEATS, amount, since, PERIOD, name, credits)

    first = CreditedLines(InvoiceId("in_1"), frozenset({"a"}))
    pending = [item("ii_1", -1080, 100, first), item("ii_2", 540, 100)]
    credit = item("c", -300, 500, CreditedLines(None, frozenset({"ii_2"})))
    paid, unpaid = (bill("in_1", line("a", 1200), status=status) for status in ("paid", "open"))
    assert judged([credit], paid, pending=pending, replaced=[SEATS]).is_paid
    again = [
        *pending,
        item("ii_3", -420, 300, CreditedLines(None, frozenset({"ii_2"}))),
        item("ii_4", 210, 300),
    ]
    credit = item("c", -150, 500, CreditedLines(None, frozenset({"ii_4"})))
    assert judged([credit], paid, pending=again, replaced=[SEATS]).is_paid
    assert not judged([credit], unpaid, pending=again, replaced=[SEATS]).is_paid


def test_a_renewal_is_hollow_when_its_invoice_also_credits_what_nobody_paid() -> None:
    """A credit of the Dashboard for an unpaid period makes the renewal's invoice a credit, so no money paid it."""
    first = bill("in_1", line("a", 5217), status="open")
    renewal = bill(
        "in_2",
        line("b", -3709, credits=("in_1", "a"), since=300),
        line("c", 158, since=300),
        line("d", 2220, since=PERIOD, until=2 * PERIOD),
        created=1,
    )
    lowered_later = [
        line("e", -1110, credits=("in_2", "d"), since=1500, until=2 * PERIOD),
        line("f", 600, since=1500, until=2 * PERIOD),
    ]
    found = judged(lowered_later, first, renewal, at=1500)
    assert (found.is_paid, found.unpaid) == (False, first)
