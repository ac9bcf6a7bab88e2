"""Money and time arithmetic of Stripe Billing: periods, amounts, prorations, discounts, taxes, invoice totals.

Pure functions over plain price, coupon and tax rate data; amounts are minor units, moments Unix seconds.
The order is Stripe's: lines, then `apply_discounts`, then `apply_taxes`, then `compose_invoice`.
"""

from stripe_simulator.billing.amounts import (
    billed_units,
    is_metered,
    quantity_amount,
    unit_amount,
    usage_amount,
)
from stripe_simulator.billing.discounts import apply_discounts, discount_end, net_amount, share_discounts
from stripe_simulator.billing.invoice import InvoiceTotals, TotalDiscount, TotalTax, compose_invoice, settle
from stripe_simulator.billing.lines import (
    Discount,
    DiscountAmount,
    ItemState,
    Line,
    TaxAmount,
    free_line,
    item_line,
    period_line,
    trial_line,
    usage_line,
)
from stripe_simulator.billing.money import BillingInputError, minimum_charge
from stripe_simulator.billing.periods import (
    Cadence,
    Period,
    add_months,
    boundary,
    item_periods,
    next_period_end,
    period_at,
)
from stripe_simulator.billing.proration import (
    BillingMode,
    Debit,
    ItemChange,
    Proration,
    first_period,
    prorate,
    prorate_all,
)
from stripe_simulator.billing.taxes import apply_taxes, line_taxes

__all__ = [
    "BillingInputError",
    "BillingMode",
    "Cadence",
    "Debit",
    "Discount",
    "DiscountAmount",
    "InvoiceTotals",
    "ItemChange",
    "ItemState",
    "Line",
    "Period",
    "Proration",
    "TaxAmount",
    "TotalDiscount",
    "TotalTax",
    "add_months",
    "apply_discounts",
    "apply_taxes",
    "billed_units",
    "boundary",
    "compose_invoice",
    "discount_end",
    "first_period",
    "free_line",
    "is_metered",
    "item_line",
    "item_periods",
    "line_taxes",
    "minimum_charge",
    "net_amount",
    "next_period_end",
    "period_at",
    "period_line",
    "prorate",
    "prorate_all",
    "quantity_amount",
    "settle",
    "share_discounts",
    "trial_line",
    "unit_amount",
    "usage_amount",
    "usage_line",
]
