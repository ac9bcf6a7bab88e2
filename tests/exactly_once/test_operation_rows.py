"""The database refuses every row of the write protocol that no transition could have made."""

from collections.abc import Mapping

import asyncpg
import pytest
from sqlalchemy import CheckConstraint

from app.operations.lifecycle import SETTLED, State
from app.operations.step_kinds import StepKind
from app.postgres.database import Connection
from app.postgres.tables import (
    OPERATION_KINDS,
    SETTLED_STATES,
    STEP_ACTIONS,
    UNSETTLED_STATES,
    operation_steps,
    operations,
    reservations,
)

Row = Mapping[str, str]

RUNNING: Row = {
    "id": "'op_1'",
    "subscription_id": "'sub_1'",
    "kind": "'member_change'",
    "state": "'running'",
    "principal": "'user'",
    "source": "'api'",
    "request": "'{}'",
    "lease_token": "gen_random_uuid()",
    "lease_until": "now()",
}
SETTLED_OPERATION: Row = {
    **RUNNING,
    "state": "'settled'",
    "settled_at": "now()",
    "lease_token": "null",
    "lease_until": "null",
}
PLANNED: Row = {
    "operation_id": "'op_1'",
    "position": "0",
    "subscription_id": "'sub_1'",
    "action": "'add'",
    "customer_id": "'cus_1'",
    "role": "'user'",
    "state": "'planned'",
    "details": "'{}'",
}
IN_FLIGHT: Row = {**PLANNED, "state": "'in_flight'", "sent_at": "now()", "unanswered_at": "now()"}
AMBIGUOUS: Row = {**PLANNED, "state": "'ambiguous'", "attempt": "1"}
APPLIED: Row = {**IN_FLIGHT, "state": "'applied'", "unanswered_at": "null", "settled_at": "now()"}
PROMISED: Row = {
    "operation_id": "'op_1'",
    "position": "0",
    "subscription_id": "'sub_1'",
    "customer_id": "'cus_1'",
}
INVITED: Row = {"subscription_id": "'sub_1'", "invitation_id": "'inv_1'"}
NUMBER: Row = {**PROMISED, "customer_id": "null", "item_id": "'si_1'", "from_quantity": "4"}
FAILED: Row = {**APPLIED, "state": "'failed'", "code": "'card_declined'"}
LEGAL = {
    "operations": (RUNNING, SETTLED_OPERATION),
    "operation_steps": (
        PLANNED,
        IN_FLIGHT,
        AMBIGUOUS,
        {**AMBIGUOUS, "state": "'expired'"},
        {**IN_FLIGHT, "state": "'awaiting_payment'", "invoice_id": "'in_1'"},
        {**AMBIGUOUS, "state": "'awaiting_payment'", "invoice_id": "'in_1'"},
        {**PLANNED, "awaits_seats": "true"},
        APPLIED,
        {**PLANNED, "state": "'unchanged'", "settled_at": "now()"},
        {**PLANNED, "state": "'refused'", "code": "'seats_exhausted'", "settled_at": "now()"},
        FAILED,
    ),
    "reservations": (
        PROMISED,
        {**PROMISED, "customer_id": "null", "email": "'a@example.com'"},
        NUMBER,
        INVITED,
        {**PROMISED, **INVITED},
    ),
}

ILLEGAL: tuple[tuple[str, Row, Row, str], ...] = (
    (
        "operations",
        {**RUNNING, "lease_until": "null", "lease_token": "null"},
        {"state": "'paused'"},
        "ck_operations_state",
    ),
    ("operations", RUNNING, {"settled_at": "now()"}, "ck_operations_settled"),
    ("operations", SETTLED_OPERATION, {"settled_at": "null"}, "ck_operations_settled"),
    (
        "operations",
        RUNNING,
        {"lease_until": "null", "lease_token": "null"},
        "ck_operations_lease_until",
    ),
    (
        "operations",
        SETTLED_OPERATION,
        {"lease_until": "now()", "lease_token": "gen_random_uuid()"},
        "ck_operations_lease_until",
    ),
    ("operations", RUNNING, {"lease_token": "null"}, "ck_operations_lease_token"),
    ("operations", RUNNING, {"seat_total": "-1"}, "ck_operations_seat_total"),
    ("operation_steps", IN_FLIGHT, {"state": "'sending'"}, "ck_operation_steps_state"),
    ("operation_steps", IN_FLIGHT, {"settled_at": "now()"}, "ck_operation_steps_settled"),
    ("operation_steps", APPLIED, {"settled_at": "null"}, "ck_operation_steps_settled"),
    (
        "operation_steps",
        IN_FLIGHT,
        {"sent_at": "null", "unanswered_at": "null"},
        "ck_operation_steps_in_flight",
    ),
    ("operation_steps", PLANNED, {"sent_at": "now()"}, "ck_operation_steps_not_in_flight"),
    ("operation_steps", AMBIGUOUS, {"sent_at": "now()"}, "ck_operation_steps_not_in_flight"),
    ("operation_steps", PLANNED, {"unanswered_at": "now()"}, "ck_operation_steps_unanswered"),
    ("operation_steps", PLANNED, {"attempt": "1"}, "ck_operation_steps_attempt"),
    ("operation_steps", IN_FLIGHT, {"attempt": "-1"}, "ck_operation_steps_attempt"),
    ("operation_steps", AMBIGUOUS, {"attempt": "0"}, "ck_operation_steps_later_attempt"),
    ("operation_steps", APPLIED, {"code": "'card_declined'"}, "ck_operation_steps_code"),
    ("operation_steps", FAILED, {"code": "null"}, "ck_operation_steps_code"),
    ("operation_steps", PLANNED, {"action": "'rename'"}, "ck_operation_steps_action"),
    ("operation_steps", PLANNED, {"customer_id": "null"}, "ck_operation_steps_person"),
    ("operation_steps", PLANNED, {"role": "'owner'"}, "ck_operation_steps_role"),
    ("operation_steps", IN_FLIGHT, {"state": "'awaiting_payment'"}, "ck_operation_steps_invoice"),
    (
        "operation_steps",
        PLANNED,
        {"action": "'remove'", "awaits_seats": "true"},
        "ck_operation_steps_awaits_seats",
    ),
    ("reservations", PROMISED, {"customer_id": "null"}, "ck_reservations_person"),
    ("reservations", NUMBER, {"customer_id": "'cus_1'"}, "ck_reservations_person"),
    ("reservations", NUMBER, {"item_id": "null"}, "ck_reservations_item"),
    ("reservations", INVITED, {"invitation_id": "null"}, "ck_reservations_holder"),
    ("reservations", INVITED, {"position": "0"}, "ck_reservations_step"),
    (
        "operation_steps",
        PLANNED,
        {"action": "'remove'", "invitation_id": "'inv_1'"},
        "ck_operation_steps_invitation",
    ),
)


async def write(connection: Connection, table: str, row: Row) -> None:
    await connection.execute(f"insert into {table} ({', '.join(row)}) values ({', '.join(row.values())})")


@pytest.mark.parametrize(("table", "row"), [(table, row) for table, rows in LEGAL.items() for row in rows])
async def test_row_is_written_when_a_transition_makes_it(
    connection: Connection, table: str, row: Row
) -> None:
    await write(connection, table, row)
    await connection.execute(f"delete from {table}")


@pytest.mark.parametrize(
    ("table", "row", "changes", "constraint"),
    ILLEGAL,
    ids=[f"{constraint}-{'-'.join(changes)}" for _, _, changes, constraint in ILLEGAL],
)
async def test_row_is_refused_when_no_transition_makes_it(
    connection: Connection, table: str, row: Row, changes: Row, constraint: str
) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await write(connection, table, {**row, **changes})
    assert refused.value.constraint_name == constraint


async def test_operation_is_refused_when_its_kind_is_unknown(connection: Connection) -> None:
    with pytest.raises(asyncpg.InvalidTextRepresentationError, match="operation_kind"):
        await write(connection, "operations", {**RUNNING, "kind": "'rename'"})


def test_every_check_has_an_illegal_row() -> None:
    named = {
        str(constraint.name)
        for table in (operations, operation_steps, reservations)
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    assert named == {constraint for *_, constraint in ILLEGAL}


def test_names_of_the_schema_are_those_of_the_code() -> None:
    assert {str(kind) for kind in StepKind} <= set(STEP_ACTIONS)
    assert set(STEP_ACTIONS) - {str(kind) for kind in StepKind} <= set(OPERATION_KINDS)
    assert {str(state) for state in State} == {*UNSETTLED_STATES, *SETTLED_STATES}
    assert {str(state) for state in SETTLED} == set(SETTLED_STATES)
    assert {row["state"].strip("'") for row in LEGAL["operation_steps"]} == {str(state) for state in State}
