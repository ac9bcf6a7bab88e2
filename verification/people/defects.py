"""Faults planted on purpose: each is one slip of the service, and an invariant has to notice it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.context import Context
from app.customers import emptied, erasure, seat_moves
from app.customers.store import seat_customers
from app.customers.store import seat_moves as move_store
from app.domain.ids import CustomerId
from app.identity import store as identities
from app.identity.principals import EndUser
from app.mirror.held_objects import held
from app.mirror.store import members
from app.operations import people_store
from app.operations.kinds import Phase
from app.operations.step_kinds import StepKind
from app.sharing.move_rules import MoveRules
from verification.planting import Change, edited


@dataclass(frozen=True, slots=True)
class Defect:
    """`breaks`: the letters of the invariants that must notice it."""

    breaks: str
    changes: Callable[[], list[Change]]


async def _nothing(*_: Any, **__: Any) -> int:
    return 0


def _records_no_typed_address() -> list[Change]:
    record = members.record_joined

    async def recorded(connection: Any, subscription_id: Any, customer_id: Any, _: Any) -> None:
        await record(connection, subscription_id, customer_id, None)

    return [(members, "record_joined", recorded)]


def _takes_the_last_candidate() -> list[Change]:
    return [(people_store, "_first", lambda ranks: ranks[max(ranks)])]


async def _deletes_without_a_look(context: Context, customer_id: CustomerId) -> None:
    async with held(context, "customer", customer_id) as one:
        async with context.database.transaction() as connection:
            if not await seat_customers.begin_deletion(connection, customer_id):
                return
        async with one.applied(await context.stripe.delete_customer(customer_id)):
            return


DEFECTS: Mapping[str, Defect] = {
    "a seat never moves": Defect("R", lambda: [(seat_moves, "look_for_seats", _nothing)]),
    "a verified address is not kept": Defect("RN", lambda: [(identities, "keep_email", _nothing)]),
    "an unverified address receives seats": Defect(
        "RNS", lambda: [(EndUser, "verified_email", property(lambda self: self.email))]
    ),
    "the old member stays": Defect(
        "NC", lambda: [(MoveRules, "phases", (Phase(StepKind.UPDATE), Phase(StepKind.ADD)))]
    ),
    "the old member leaves, and nobody joins": Defect(
        "RSN", lambda: [(seat_moves, "_joining", lambda *_, **__: [])]
    ),
    "the typed address is not recorded": Defect("R", _records_no_typed_address),
    "additions take the last candidate": Defect("R", _takes_the_last_candidate),
    "emptied customers stay": Defect("G", lambda: [(emptied, "delete_emptied", _nothing)]),
    "seated customers are deleted": Defect(
        "SRN",
        lambda: [
            edited(
                seat_customers,
                "_EMPTIED",
                ("and not exists (select from memberships m where m.customer_id = s.customer_id)", ""),
            ),
            (emptied, "_delete", _deletes_without_a_look),
        ],
    ),
    "seat customers are not recorded": Defect(
        "GRN", lambda: [(people_store, "record_seat_customer", _nothing)]
    ),
    "deleted people are not erased": Defect("X", lambda: [(erasure, "erase_deleted", _nothing)]),
    "seats of other people move": Defect(
        "NRS",
        lambda: [
            edited(
                move_store,
                "_UNCLAIMED",
                ('lower(k.typed_email collate "C") = i.email and', ""),
            )
        ],
    ),
}
