"""Large teams in a cache: members whose rows PostgreSQL copies from one that the service's own parser wrote."""

from __future__ import annotations

from app.mirror.store import rows as mirror
from app.postgres.database import Connection
from app.stripe.parsing import PARSERS

TEMPLATE = 7_919_281
"""The number of the member whose row is copied: seven digits that nothing else in it repeats."""
AT_ONCE = 500


def member_id(team: str, number: int) -> str:
    return f"cus_{team}{number:07}"


def member_email(team: str, number: int) -> str:
    return f"{team}.{number:07}@example.com"


async def add_members(
    connection: Connection,
    subscription_id: str,
    team: str,
    number: int,
    *,
    issuer: str = "https://growth.example",
) -> None:
    """Add `number` users to a subscription.

    Half of them were added by e-mail. A tenth, whose number ends with 0, has a login whose subject is the customer id.
    """
    template = {
        "id": member_id(team, TEMPLATE),
        "created": 1_700_000_000,
        "name": f"Member {TEMPLATE}",
        "email": member_email(team, TEMPLATE),
        "metadata": {
            "billing_shared_subscription_id": subscription_id,
            "billing_shared_subscription_role": "user",
        },
    }
    await mirror.apply_page(connection, [PARSERS["customer"](template)], marker=0)
    # Each statement is a transaction, as the pages of a first fill are.
    for first in range(0, number, AT_ONCE):
        await connection.execute(
            """insert into customers select copied.* from (
                select to_jsonb(c)::text as row from customers c where id = $1) t
            cross join generate_series($2::int, $3::int) n
            cross join jsonb_populate_record(null::customers,
                replace(t.row, $4, to_char(n, 'FM0000000'))::jsonb) copied""",
            template["id"],
            first,
            min(first + AT_ONCE, number) - 1,
            str(TEMPLATE),
        )
    await connection.execute("delete from customers where id = $1", template["id"])
    await connection.execute(
        """insert into member_records (subscription_id, customer_id, typed_email)
        select $1, id, email from customers where id like $2 || '%' and right(id, 1) < '5'""",
        subscription_id,
        f"cus_{team}",
        timeout=600,
    )
    await connection.execute(
        """insert into identities (issuer, subject, customer_id, linked_at)
        select $2, id, id, clock_timestamp() from customers
        where id like $1 || '%' and right(id, 1) = '0'""",
        f"cus_{team}",
        issuer,
        timeout=600,
    )
