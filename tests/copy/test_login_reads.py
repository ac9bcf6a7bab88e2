"""The read of one subscription by a login: its short statement, and the whole one where an operation is open."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.domain.ids import CustomerId, SubscriptionId
from app.identity.principals import EndUser
from app.mirror.store import subscriptions
from testkit.company import Company, Person, Service, new_email
from testkit.service import ISSUER


async def reserve(service: Service, company: Company, *, released: bool = False) -> None:
    await service.fetch(
        """insert into reservations (operation_id, position, subscription_id, email, released_at)
        values ($1, 0, $2, $3, case when $4 then now() end) returning id""",
        f"op_{secrets.token_hex(8)}",
        company.subscription_id,
        new_email(),
        released,
    )


async def reserve_for_invitation(service: Service, company: Company) -> None:
    await service.fetch(
        "insert into reservations (invitation_id, subscription_id) values ($1, $2) returning id",
        f"inv_{secrets.token_hex(8)}",
        company.subscription_id,
    )


async def read_by(service: Service, person: Person, subscription_id: str) -> tuple[Any, list[str]]:
    """The view, and the statements that it took."""
    # The first request of a login links it.
    await service.get(f"/v1/subscriptions/{subscription_id}", person.headers)
    statements: list[str] = []
    async with service.context.database.connection() as connection:
        with connection.query_logger(lambda query: statements.append(query.query)):
            _, view = await subscriptions.view_for_login(
                connection, SubscriptionId(subscription_id), EndUser(ISSUER, person.subject)
            )
            # asyncpg calls the logger in the next turn of the loop.
            await asyncio.sleep(0)
    # asyncpg asks PostgreSQL about types that a connection reads for the first time.
    return view, [one for one in statements if "subscriptions s" in one]


async def test_read_takes_one_statement_when_no_operation_is_open(service: Service) -> None:
    company = await service.company(seats=5)
    await reserve(service, company, released=True)
    view, statements = await read_by(service, company.owner, company.subscription_id)
    assert (view.reserved, view.waiting, len(statements)) == (0, None, 1)


@pytest.mark.parametrize("keep", [reserve, reserve_for_invitation])
async def test_read_shows_reserved_seats_when_an_operation_or_invitation_is_open(
    service: Service, keep: Callable[[Service, Company], Awaitable[None]]
) -> None:
    company = await service.company(seats=5)
    await keep(service, company)
    for person in (company.owner, company.manager, company.payer):
        view, statements = await read_by(service, person, company.subscription_id)
        assert (view.reserved, view.waiting, len(statements)) == (1, None, 2)
        async with service.context.database.connection() as connection:
            whole = await subscriptions.subscription_view(
                connection, SubscriptionId(company.subscription_id), asker=CustomerId(person.customer_id)
            )
        assert view == whole


async def test_foreign_read_takes_as_many_statements_as_an_absent_one_when_an_operation_is_open(
    service: Service,
) -> None:
    company, stranger = await service.company(seats=5), await service.person("stranger")
    await reserve(service, company)
    for subscription_id in (company.subscription_id, "sub_absent"):
        _, statements = await read_by(service, stranger, subscription_id)
        assert len(statements) == 1
