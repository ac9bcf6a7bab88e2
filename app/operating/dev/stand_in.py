"""The controls of the stand-in for Stripe that the panel offers: its clock, and the payer's browser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import httpx

from app.domain.snapshots import JsonObject
from app.errors import InvalidRequest, PaymentRequired, ServiceUnavailable

_SECONDS: Final = 60.0
_DECLINED: Final = 402


@dataclass(frozen=True, slots=True)
class Outcome:
    """A way in which a payment can end: the test card that does it, and the cardholder's answer to the bank."""

    payment_method: str
    authenticate: bool
    about: str


OUTCOMES: Final = (
    Outcome("pm_card_visa", True, "The card is charged."),
    Outcome(
        "pm_card_threeDSecure2Required", True, "The bank asks (3-D Secure), and the cardholder confirms."
    ),
    Outcome(
        "pm_card_threeDSecure2Required", False, "The bank asks (3-D Secure), and the cardholder does not."
    ),
    Outcome("pm_card_chargeDeclined", True, "The card is declined."),
    Outcome("pm_card_chargeDeclinedInsufficientFunds", True, "The card is declined: insufficient funds."),
    Outcome(
        "pm_card_chargeCustomerFail", True, "The card can be stored, and is declined when it is charged."
    ),
    Outcome("pm_sepaDebit", True, "The debit takes five days, and is paid."),
    Outcome("pm_sepaDebitFailed", True, "The debit takes five days, and fails."),
)


class StandIn:
    """Calls the controls of one account of the stand-in.

    Each method raises InvalidRequest if the stand-in refuses, and ServiceUnavailable if it does not answer.
    """

    def __init__(self, base: str, key: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=f"{base}/_simulator/",
            headers={"Authorization": f"Bearer {key}"},
            timeout=_SECONDS,
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def clock(self) -> JsonObject:
        """Return the account's time as a Unix second (`now`), and `frozen`: True if it stands still."""
        return _clock(await self._ask("GET", "clock"))

    async def advance(self, seconds: int) -> JsonObject:
        """Move the clock forward and do what falls due. Returns what `clock` returns."""
        return _clock(await self._ask("POST", "clock", {"advance": seconds}))

    async def confirm(self, given: JsonObject) -> JsonObject:
        """Confirm the intent of a client secret as the payer's browser would, and return its `id` and `status`.

        Raises:
            PaymentRequired: The card is declined.
        """
        intent = await self._ask("POST", "confirm", given)
        return {"id": intent["id"], "status": intent["status"]}

    async def _ask(self, method: str, path: str, given: JsonObject | None = None) -> Any:
        try:
            response = await self._client.request(method, path, json=given)
        except httpx.HTTPError as error:
            raise ServiceUnavailable(
                "The stand-in for Stripe does not answer. Start `coseat dev` again."
            ) from error
        if response.is_success:
            return response.json()
        refusal: JsonObject = response.json()["error"]
        if response.status_code == _DECLINED:
            raise PaymentRequired(refusal["message"], members={"decline_code": refusal.get("decline_code")})
        raise InvalidRequest(f"The stand-in refuses: {refusal['message']}")


def _clock(answer: JsonObject) -> JsonObject:
    return {"now": int(answer["now"]), "frozen": answer.get("frozen") is not None}
