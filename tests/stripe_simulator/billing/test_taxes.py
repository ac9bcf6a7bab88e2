from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripe_simulator.billing import BillingInputError, DiscountAmount, apply_taxes, line_taxes
from tests.stripe_simulator.billing.builders import PROPERTY, line, tax_rate

VAT = tax_rate(19, id="txr_vat")
INCLUDED = tax_rate(19, inclusive=True, id="txr_included")


def test_exclusive_tax_comes_on_top() -> None:
    (tax,) = line_taxes(1050, [VAT])
    # 19 % of 1050 is 199.5, half goes up.
    assert (tax.amount, tax.taxable_amount, tax.inclusive) == (200, 1050, False)


def test_inclusive_tax_is_part_of_the_amount() -> None:
    (tax,) = line_taxes(1000, [INCLUDED])
    # 1000 × 19 / 119 = 159.66, so 840 net.
    assert (tax.amount, tax.taxable_amount, tax.inclusive) == (160, 840, True)


def test_each_rate_is_rounded_on_its_own() -> None:
    rates = [tax_rate(5, id="txr_gst"), tax_rate(9.975, id="txr_qst")]
    # Of 999: 49.95 and 99.65. Of 1010: 50.5 and 100.7475, 152 one by one where their sum, 151.2475, gives 151.
    assert [tax.amount for tax in line_taxes(999, rates)] == [50, 100]
    assert [tax.amount for tax in line_taxes(1010, rates)] == [51, 101]


def test_several_inclusive_rates_share_one_base() -> None:
    rates = [tax_rate(10, inclusive=True, id="a"), tax_rate(15, inclusive=True, id="b")]
    # 1000 / 1.25 = 800; 80 and 120.
    assert [(tax.amount, tax.taxable_amount) for tax in line_taxes(1000, rates)] == [(80, 800), (120, 800)]


def test_exclusive_beside_inclusive_is_taken_from_the_net() -> None:
    # 1190 holds 190 of tax; 10 % of 1000 on top.
    assert [tax.amount for tax in line_taxes(1190, [tax_rate(10, id="x"), INCLUDED])] == [100, 190]


def test_a_credit_gives_tax_back() -> None:
    assert line_taxes(-1050, [VAT])[0].amount == -200
    assert line_taxes(-1000, [INCLUDED])[0].amount == -160


def test_discounts_lower_the_base() -> None:
    (taxed,) = apply_taxes([line(1000, discount_amounts=(DiscountAmount("di_1", 200),))], default_rates=[VAT])
    assert taxed.taxes[0].amount == 152  # 19 % of 800


def test_item_rates_replace_the_default() -> None:
    lines = [line(1000, "si_1"), line(1000, "si_2"), line(1000, "si_3")]
    item_rates = {"si_2": [tax_rate(7, id="txr_reduced")], "si_3": []}
    taxed = apply_taxes(lines, default_rates=[VAT], item_rates=item_rates)
    assert [[(tax.tax_rate, tax.amount) for tax in each.taxes] for each in taxed] == [
        [("txr_vat", 190)],
        [("txr_reduced", 70)],
        [("txr_vat", 190)],
    ]


def test_no_rates_no_taxes() -> None:
    assert apply_taxes([line(1000)])[0].taxes == ()


def test_a_flat_amount_is_refused() -> None:
    with pytest.raises(BillingInputError, match="not a percentage"):
        line_taxes(
            1000, [{"id": "txr_flat", "inclusive": False, "rate_type": "flat_amount", "percentage": 0}]
        )


def test_stripes_form() -> None:
    assert line_taxes(1000, [INCLUDED])[0].as_stripe() == {
        "amount": 160,
        "tax_behavior": "inclusive",
        "tax_rate_details": {"tax_rate": "txr_included"},
        "taxability_reason": "not_available",
        "taxable_amount": 840,
        "type": "tax_rate_details",
    }


@PROPERTY
@given(amount=st.integers(0, 10_000_000), percentage=st.decimals("0", "40", places=4))
def test_a_credit_mirrors_its_charge(amount: int, percentage: object) -> None:
    rates = [
        tax_rate(float(str(percentage)), id="a"),
        tax_rate(float(str(percentage)), inclusive=True, id="b"),
    ]
    charged, credited = line_taxes(amount, rates), line_taxes(-amount, rates)
    assert [tax.amount for tax in charged] == [-tax.amount for tax in credited]
    assert charged[1].amount + charged[1].taxable_amount == amount
