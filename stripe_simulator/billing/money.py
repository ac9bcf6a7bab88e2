"""Exact rounding and the currency facts that amounts rest on; every amount is an int of minor units."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from fractions import Fraction


class BillingInputError(ValueError):
    """The objects handed in cannot be billed: an unknown currency option, tiers without an end, a bad quantity."""


# Stripe's documentation, "Supported currencies": amounts of these have no minor unit.
_ZERO_DECIMAL = frozenset(
    [
        "bif",
        "clp",
        "djf",
        "gnf",
        "jpy",
        "kmf",
        "krw",
        "mga",
        "pyg",
        "rwf",
        "ugx",
        "vnd",
        "vuv",
        "xaf",
        "xof",
        "xpf",
    ]
)
_THREE_DECIMAL = frozenset(["bhd", "jod", "kwd", "omr", "tnd"])
_SYMBOLS = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥", "cad": "CA$", "aud": "A$", "nzd": "NZ$"}

# Stripe's documentation, "Minimum and maximum charge amounts". Currencies that the table leaves out are taken at
# 50 units: Stripe then judges the amount converted to the settlement currency, which nobody knows here.
_MINIMUM_CHARGES = {
    "aed": 200,
    "bgn": 100,
    "czk": 1500,
    "dkk": 250,
    "gbp": 30,
    "hkd": 400,
    "huf": 17500,
    "mxn": 1000,
    "myr": 200,
    "nok": 300,
    "pln": 200,
    "ron": 200,
    "sek": 300,
    "thb": 1000,
}
_COMMON_MINIMUM_CHARGE = 50


def round_half_up(value: Fraction) -> int:
    """Nearest whole minor unit; halves go away from zero, so that a credit mirrors its charge."""
    magnitude = (2 * abs(value.numerator) + value.denominator) // (2 * value.denominator)
    return magnitude if value >= 0 else -magnitude


def exact(value: float | str | Decimal) -> Fraction:
    """A number of Stripe's JSON without loss; a float counts as the decimal that it prints as.

    Raises BillingInputError for anything that is not a finite number.
    """
    try:
        return Fraction(Decimal(str(value)))
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise BillingInputError(f"not a number: {value!r}") from error


def share(amount: int, part: int, whole: int) -> int:
    """`amount` × `part` / `whole`, rounded half up; `whole` must be positive."""
    return round_half_up(Fraction(amount * part, whole))


def minimum_charge(currency: str) -> int:
    """Smallest amount that can be charged, in minor units."""
    return _MINIMUM_CHARGES.get(currency, _COMMON_MINIMUM_CHARGE)


def decimal_places(currency: str) -> int:
    """Digits after the point in the currency's major unit: 0, 2 or 3."""
    if currency in _ZERO_DECIMAL:
        return 0
    return 3 if currency in _THREE_DECIMAL else 2


def decimal_text(value: Fraction) -> str:
    """A terminating decimal in plain notation without trailing zeros: `1000`, `0.05`."""
    text = f"{Decimal(value.numerator) / Decimal(value.denominator):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def display_amount(minor_units: Fraction, currency: str) -> str:
    """The amount as an invoice line words it: `$10.00`, `¥500`, `12.00 CHF`; fractions of a cent are kept."""
    places = decimal_places(currency)
    whole, _, digits = decimal_text(minor_units / 10**places).partition(".")
    digits = digits.ljust(places, "0")
    text = f"{int(whole):,}.{digits}" if digits else f"{int(whole):,}"
    symbol = _SYMBOLS.get(currency)
    return f"{symbol}{text}" if symbol else f"{text} {currency.upper()}"
