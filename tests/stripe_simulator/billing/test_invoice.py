from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripe_simulator.billing import (
    BillingInputError,
    TotalDiscount,
    TotalTax,
    apply_discounts,
    apply_taxes,
    compose_invoice,
    minimum_charge,
    settle,
)
from tests.stripe_simulator.billing.builders import PROPERTY, amount_off, line, percent, tax_rate

VAT = tax_rate(20, id="txr_vat")


def test_a_plain_invoice() -> None:
    invoice = compose_invoice([line(1000), line(2500)], currency="usd")
    assert (invoice.subtotal, invoice.total, invoice.amount_due) == (3500, 3500, 3500)
    assert (invoice.starting_balance, invoice.ending_balance, invoice.carried_to_balance) == (0, 0, False)
    assert invoice.total_discount_amounts == () and invoice.total_taxes == ()


def test_twenty_lines_with_coupon_and_tax() -> None:
    # 100, 200, … 2000 make 21000. 10 % off every line makes 2100, and all shares are whole.
    lines = [line(100 * number, f"si_{number}") for number in range(1, 21)]
    discounted = apply_discounts(lines, subscription_discounts=[percent(10)])
    # 20 % of 90, 180, … 1800 are whole too: 20 % of 18900 is 3780.
    invoice = compose_invoice(apply_taxes(discounted, default_rates=[VAT]), currency="usd")
    assert len(invoice.lines) == 20
    assert invoice.subtotal == 21_000
    assert invoice.total_discount_amounts == (TotalDiscount("di_percent", 2100),)
    assert invoice.total_taxes == (TotalTax("txr_vat", 3780, False, 18_900),)
    assert (invoice.total_excluding_tax, invoice.total, invoice.amount_due) == (18_900, 22_680, 22_680)


def test_rounding_happens_line_by_line() -> None:
    # 20 lines of 333 with 10 % off: 33.3 → 33 each, 660 in all (of the sum it would be 666).
    # 20 % tax of 300 is 60 each.
    lines = [line(333) for _ in range(20)]
    taxed = apply_taxes(apply_discounts(lines, subscription_discounts=[percent(10)]), default_rates=[VAT])
    invoice = compose_invoice(taxed, currency="usd")
    assert (invoice.subtotal, invoice.total_discount_amounts[0].amount) == (6660, 660)
    assert (invoice.total_taxes[0].amount, invoice.total) == (1200, 7200)


def test_item_discounts_are_inside_the_subtotal() -> None:
    lines = apply_discounts(
        [line(2000, "si_1"), line(1000, "si_2")],
        item_discounts={"si_1": [percent(50, "di_item")]},
        subscription_discounts=[amount_off(200, "di_sub")],
    )
    invoice = compose_invoice(lines, currency="usd")
    assert (invoice.subtotal, invoice.total) == (2000, 1800)
    assert invoice.total_discount_amounts == (TotalDiscount("di_item", 1000), TotalDiscount("di_sub", 200))


def test_inclusive_tax_does_not_raise_the_total() -> None:
    included = tax_rate(19, inclusive=True, id="txr_included")
    lines = apply_discounts([line(1190)], subscription_discounts=[amount_off(595)])
    invoice = compose_invoice(apply_taxes(lines, default_rates=[included]), currency="usd")
    # Half of 1190 is left: 595 = 500 + 95; the subtotal of 1190 holds 190.
    assert (invoice.subtotal, invoice.subtotal_excluding_tax) == (1190, 1000)
    assert (invoice.total, invoice.total_excluding_tax) == (595, 500)
    assert invoice.total_taxes == (TotalTax("txr_included", 95, True, 500),)


def test_credit_lowers_what_is_due() -> None:
    invoice = compose_invoice([line(3000)], currency="usd", starting_balance=-1200)
    assert (invoice.total, invoice.amount_due, invoice.ending_balance) == (3000, 1800, 0)
    invoice = compose_invoice([line(3000)], currency="usd", starting_balance=-5000)
    assert (invoice.amount_due, invoice.ending_balance) == (0, -2000)


def test_debt_raises_what_is_due() -> None:
    invoice = compose_invoice([line(3000)], currency="usd", starting_balance=40)
    assert (invoice.amount_due, invoice.ending_balance) == (3040, 0)


def test_a_negative_invoice_becomes_credit() -> None:
    invoice = compose_invoice([line(-1800), line(600)], currency="usd", starting_balance=-100)
    assert (invoice.total, invoice.amount_due, invoice.ending_balance) == (-1200, 0, -1300)
    assert not invoice.carried_to_balance


def test_a_negative_invoice_pays_debt_but_charges_nothing() -> None:
    assert settle(-1200, 2000, "usd") == (0, 800, False)


def test_a_zero_invoice() -> None:
    invoice = compose_invoice([line(0)], currency="usd")
    assert (invoice.total, invoice.amount_due, invoice.ending_balance, invoice.carried_to_balance) == (
        0,
        0,
        0,
        False,
    )
    assert compose_invoice([], currency="usd").total == 0


@pytest.mark.parametrize(
    ("total", "balance", "currency", "expected"),
    [
        (49, 0, "usd", (0, 49, True)),
        (50, 0, "usd", (50, 0, False)),
        (1000, -970, "usd", (0, 30, True)),  # what credit leaves is too small
        (30, 30, "usd", (60, 0, False)),  # together with the debt carried before it can be charged
        (29, 0, "gbp", (0, 29, True)),
        (30, 0, "gbp", (30, 0, False)),
        (299, 0, "sek", (0, 299, True)),
        (49, 0, "jpy", (0, 49, True)),
    ],
)
def test_amounts_too_small_to_charge_are_carried(
    total: int, balance: int, currency: str, expected: tuple[int, int, bool]
) -> None:
    assert settle(total, balance, currency) == expected


def test_one_currency_per_invoice() -> None:
    with pytest.raises(BillingInputError, match="another currency"):
        compose_invoice([line(100, currency="eur")], currency="usd")


def test_stripes_form() -> None:
    taxed = apply_taxes(
        apply_discounts([line(1000)], subscription_discounts=[percent(10)]), default_rates=[VAT]
    )
    fields = compose_invoice(taxed, currency="usd").as_stripe()
    assert fields["total_discount_amounts"] == [{"amount": 100, "discount": "di_percent"}]
    assert fields["total_taxes"][0]["tax_behavior"] == "exclusive"
    assert (fields["subtotal"], fields["total"], fields["amount_due"]) == (1000, 1080, 1080)


amounts = st.lists(st.integers(-100_000, 100_000), max_size=20)


@PROPERTY
@given(
    amounts=amounts,
    off=st.integers(1, 50_000),
    share=st.integers(1, 100),
    balance=st.integers(-90_000, 90_000),
)
def test_lines_sum_to_the_total(amounts: list[int], off: int, share: int, balance: int) -> None:
    stack = [percent(share, "di_a"), amount_off(off, "di_b")]
    lines = apply_discounts([line(amount) for amount in amounts], subscription_discounts=stack)
    rates = [VAT, tax_rate(7, inclusive=True, id="txr_in")]
    invoice = compose_invoice(
        apply_taxes(lines, default_rates=rates), currency="usd", starting_balance=balance
    )
    discounts = sum(entry.amount for entry in invoice.total_discount_amounts)
    exclusive = sum(tax.amount for tax in invoice.total_taxes if not tax.inclusive)
    inclusive = sum(tax.amount for tax in invoice.total_taxes if tax.inclusive)
    assert invoice.subtotal == sum(amounts)
    assert invoice.total == invoice.subtotal - discounts + exclusive
    assert invoice.total_excluding_tax == invoice.total - exclusive - inclusive
    assert discounts <= sum(amount for amount in amounts if amount > 0)


@PROPERTY
@given(total=st.integers(-100_000, 100_000), balance=st.integers(-100_000, 100_000))
def test_settling_neither_makes_nor_loses_money(total: int, balance: int) -> None:
    amount_due, ending, carried = settle(total, balance, "usd")
    assert amount_due + ending == total + balance
    assert amount_due == 0 or amount_due >= minimum_charge("usd")
    assert not carried or 0 < ending < minimum_charge("usd")
