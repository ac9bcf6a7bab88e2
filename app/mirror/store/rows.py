"""Apply snapshots to mirrored rows by the sync rule. No other statements change these rows.

Stripe delivers an event at least once, in any order, and dates it in whole seconds. So each row has a `marker`, the
second of the newest information that it shows, and a `serial`, which every change increments:

- An event's payload is applied if its `created` is later than the marker by more than the margin. Otherwise it counts
  as a notification, and the object is fetched again.
- A fetched object is applied if the row's serial is the one from before the fetch, or if the row is equal. The lease
  under which it was fetched must still be valid; the caller checks that in the same transaction.
- An object on a page of a list is inserted if it has no row, and counts as a notification if it differs from its row.
- A `terminal` row (deleted, cancelled or expired) is never changed to one that is not.

Rows are sent as one JSON array that PostgreSQL converts into the table's row type, so any number takes one statement.
See docs/decisions/0021-apply-a-payload-only-when-clearly-newer.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from app.domain.snapshots import Customer, Invoice, PaymentMethod, Price, Product, Snapshot, Subscription
from app.domain.statuses import ENDED
from app.mirror.store.object_keys import key_sql
from app.mirror.store.refreshes import COUNT_NOTIFICATION
from app.mirror.store.unreadable import FORGET
from app.postgres.database import Connection, Database, Record, ValueRefused

NOT_COLUMNS = frozenset({"deleted", "items_complete", "discounts_complete"})
SYNC_COLUMNS = ("marker", "serial", "existence", "terminal", "synced_at")

# Stripe's payloads contain only the ids of discounts. A payload is applied only if the row, or the payload itself, has
# the details of each discount. The row keeps the details of the discounts that remain.
_DISCOUNTS_OF = "coalesce(jsonb_path_query_array({row}.discount_details, '$[*].id'), '[]')"
_OWN_DETAILS = f"excluded.discounts <@ {_DISCOUNTS_OF.format(row='excluded')}"
_KNOWN_DETAILS = f"({_OWN_DETAILS} or excluded.discounts <@ {_DISCOUNTS_OF.format(row='t')})"
_KEPT_DETAILS = f"""discount_details = case when {_OWN_DETAILS} then excluded.discount_details else (
    select jsonb_agg(d.detail order by k.position)
    from jsonb_array_elements_text(excluded.discounts) with ordinality k(id, position)
    join jsonb_array_elements(t.discount_details) d(detail) on d.detail ->> 'id' = k.id) end"""

_CLAIMED = "incoming i join claimed c on c.id = i.event_id where i.usable order by i.id"

# The owner of the account chooses the ids of products and of plans (prices), and may create one again that was deleted.
_REUSED_IDS = frozenset({"product", "price"})
_SAME_SECOND_SECONDS = 5
"""An object that was created again in the very second of its predecessor is told from it by a fetch so much later."""


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event for the inbox. `created` is its Unix second.

    `usable` is True if the payload has our API version and complete lists; otherwise `reason` is its outcome.
    """

    id: str
    type: str
    object_id: str
    created: int
    usable: bool
    reason: str


@dataclass(frozen=True, slots=True)
class EventEffect:
    """The effect of an event. `claimed` is False for a duplicate; `outcome` is recorded in `webhook_events`."""

    claimed: bool
    outcome: str


APPLIED, NOTED = "applied", "noted"
HAD_ENDED = "ignored: had ended"
"""Outcome of an event that arrived after the row had become terminal."""


def _in_one_second(new: str, old: str) -> str:
    """Return the condition on which an object was created and deleted, and perhaps created again, in one second."""
    return f"({new}.created = {old}.created and {old}.marker <= {old}.created + {_SAME_SECOND_SECONDS})"


class Mirror:
    """A mirrored table with its statements, built once from the fields of the snapshot."""

    def __init__(self, kind: str, table: str, snapshot: type[Snapshot]) -> None:
        self.kind = kind
        self.table = table
        self.fields = tuple(f.name for f in fields(snapshot) if f.name not in NOT_COLUMNS)
        self._written = (*self.fields, "marker", "existence", "terminal")
        self._changes = {
            name: f"{name} = excluded.{name}" for name in self._written if name not in ("id", "marker")
        }
        self.apply_events = self._applying_events()
        self.apply_fetched = self._applying_fetched()
        self.apply_page = self._applying_page()
        self.mark_absent = self._marking_absent()
        self.age = f"""
            select synced_at < clock_timestamp() - $2 * interval '1 second' from {table} where id = $1"""
        self.serial = f"select serial from {table} where id = $1"

    def _upsert(self, source: str, changes: dict[str, str], *, or_else: str = "") -> str:
        """Return an upsert from the rows `i` of `source`, to be continued with a condition.

        `or_else` is a further case in which a row may follow a terminal one.
        """
        return f"""
            insert into {self.table} as t ({", ".join(self._written)}, serial, synced_at)
            select {", ".join(f"i.{name}" for name in self._written)}, 1, clock_timestamp() from {source}
            on conflict (id) do update set {", ".join(changes.values())}, marker = greatest(t.marker, excluded.marker),
                serial = t.serial + 1, synced_at = clock_timestamp()
            where ({self.may_follow("excluded", "t")} {or_else}) and """

    def may_follow(self, new: str, old: str, *, for_certain: bool = True) -> str:
        """Return the condition on which row `new` may replace row `old`, as far as both may be terminal.

        A terminal row stays. Only an id that is used again has a new object: its own `created` is later than that of
        the deleted one. With `for_certain=False` both may be of one second, so that a fetch has to decide.
        """
        if self.kind not in _REUSED_IDS:
            return f"({new}.terminal or not {old}.terminal)"
        in_one_second = "" if for_certain else f"or {_in_one_second(new, old)}"
        return f"""(case when {new}.terminal then {new}.created >= {old}.created
            else not {old}.terminal or {new}.created > {old}.created {in_one_second} end)"""

    def _applying_events(self) -> str:
        table, kind = self.table, self.kind
        key = key_sql(kind, "i.id")
        changes, known, all_known = self._changes, "true", "true"
        if "discount_details" in changes:
            changes = {**changes, "discount_details": _KEPT_DETAILS}
            known = _KNOWN_DETAILS
            of_row = f"(select {_DISCOUNTS_OF.format(row='t')} from {table} t where t.id = i.id)"
            all_known = f"""(i.discounts <@ {_DISCOUNTS_OF.format(row="i")}
                or i.discounts <@ coalesce({of_row}, '[]'))"""
        # Each phase is sorted (claims, rows, refreshes), so that groups of several processes never deadlock.
        return f"""
            with incoming as (
                select e.event_id, e.event_type, e.usable and {all_known} as usable,
                    case when e.usable then '{NOTED}' else e.reason end as reason, i.*
                from unnest($2::text[], $3::text[], $4::text[], $5::boolean[], $6::text[])
                    as e(object_id, event_id, event_type, usable, reason)
                join jsonb_populate_recordset(null::{table}, $1) i on i.id = e.object_id
            ), claimed as (
                insert into webhook_events (id, type, object_id, created, outcome)
                select i.event_id, i.event_type, i.id, i.marker,
                       case when not i.usable then i.reason
                            when i.existence <> 'deleted'
                                and i.marker <= (select t.marker + $7 from {table} t where t.id = i.id)
                            then '{NOTED}' else '{APPLIED}' end
                from incoming i order by i.event_id
                on conflict (id) do nothing returning id, outcome
            ), applied as (
                {self._upsert(_CLAIMED, changes)}
                    {known} and (excluded.marker > t.marker + $7 or excluded.existence = 'deleted')
                returning t.id
            ), noted as (
                insert into refreshes as r (id, kind, notifications, notified_at)
                select {key}, '{kind}', 1, i.marker from incoming i join claimed c on c.id = i.event_id
                where not exists (select from applied a where a.id = i.id)
                  and not exists (select from {table} t
                      where t.id = i.id and t.terminal and not {self.may_follow("i", "t", for_certain=False)})
                order by 1
                {COUNT_NOTIFICATION}
                returning r.id
            ), cleared as (
                update refreshes r set notifications = 0, attempts = 0, last_error = null, dead_at = null
                from applied a join incoming i on i.id = a.id
                where r.id = {key} and r.lease_token is null and r.notified_at + $7 < i.marker
                  and r.notifications > 0
            ), read_well as (
                {FORGET.format(source="applied", kind=kind)}
            )
            select i.event_id, (select c.outcome from claimed c where c.id = i.event_id) as expected,
                exists (select from applied a where a.id = i.id) as applied,
                exists (select from noted n where n.id = {key}) as noted
            from incoming i"""

    def _applying_fetched(self) -> str:
        table, same_second = self.table, ""
        if self.kind in _REUSED_IDS:
            same_second = f"""or (not excluded.terminal and {_in_one_second("excluded", "t")}
                and excluded.marker > t.marker + {_SAME_SECOND_SECONDS})"""
        # The webhook for our own write often arrives before the response. If both agree, no further fetch is needed.
        return f"""
            with incoming as (
                select * from jsonb_populate_record(null::{table}, $1)
            ), applied as (
                {self._upsert("incoming i", self._changes, or_else=same_second)} (t.serial = $2
                    or ({self._compared("t")}) is not distinct from ({self._compared("excluded")}))
                returning t.id
            ), read_well as (
                {FORGET.format(source="incoming", kind=self.kind)}
            )
            select exists (select from applied)
                or exists (select from {table} t, incoming i where t.id = i.id and t.terminal and not i.terminal
                    and not {self.may_follow("i", "t", for_certain=False)})"""

    def _applying_page(self) -> str:
        table, kind, columns = self.table, self.kind, ", ".join(self._written)
        return f"""
            with incoming as (
                select * from jsonb_populate_recordset(null::{table}, $1)
            ), inserted as (
                insert into {table} ({columns}, serial, synced_at)
                select {columns}, 1, clock_timestamp() from incoming order by id
                on conflict (id) do nothing returning id
            ), differing as (
                select i.id, i.marker from incoming i join {table} t on t.id = i.id
                where ({self._compared("t")})
                      is distinct from ({self._compared("i")})
                  and {self.may_follow("i", "t", for_certain=False)}
            ), noted as (
                insert into refreshes as r (id, kind, notifications, notified_at)
                select {key_sql(kind, "id")}, '{kind}', 1, marker from differing order by 1
                {COUNT_NOTIFICATION}
            )
            select (select count(*) from inserted) as inserted, (select count(*) from differing) as differing"""

    def _marking_absent(self) -> str:
        table = self.table
        return f"""
            with marked as (
                update {table} set existence = 'absent', marker = greatest(marker, $3), serial = serial + 1,
                    synced_at = clock_timestamp()
                where id = $1 and serial = $2 and not terminal
            ), gone as (
                delete from unreadable_objects where kind = '{self.kind}' and id = $1
            )
            select not exists (select from {table} where id = $1 and serial <> $2 and not terminal)"""

    def _compared(self, row: str) -> str:
        """Return the compared columns of a row."""
        return ", ".join(f"{row}.{name}" for name in (*self.fields, "existence"))

    def row(self, snapshot: Snapshot, marker: int) -> dict[str, Any]:
        """Return the values of a snapshot's row. `marker` is a Unix second."""
        row = {name: getattr(snapshot, name) for name in self.fields}
        row["marker"] = marker
        row["existence"] = "deleted" if snapshot.deleted else "present"
        row["terminal"] = snapshot.deleted or (
            isinstance(snapshot, Subscription) and snapshot.status in ENDED
        )
        return row


PRODUCTS = Mirror("product", "products", Product)
PRICES = Mirror("price", "prices", Price)
CUSTOMERS = Mirror("customer", "customers", Customer)
SUBSCRIPTIONS = Mirror("subscription", "subscriptions", Subscription)
PAYMENT_METHODS = Mirror("payment_method", "payment_methods", PaymentMethod)
INVOICES = Mirror("invoice", "invoices", Invoice)

MIRRORS = {m.kind: m for m in (PRODUCTS, PRICES, CUSTOMERS, SUBSCRIPTIONS, PAYMENT_METHODS, INVOICES)}
_BY_TYPE: dict[type[Snapshot], Mirror] = {
    Product: PRODUCTS,
    Price: PRICES,
    Customer: CUSTOMERS,
    Subscription: SUBSCRIPTIONS,
    PaymentMethod: PAYMENT_METHODS,
    Invoice: INVOICES,
}


def mirror_of(snapshot: Snapshot) -> Mirror:
    """Return the table of a snapshot's kind."""
    return _BY_TYPE[type(snapshot)]


async def apply_event(
    connection: Connection, event: EventRecord, snapshot: Snapshot, *, margin: int
) -> EventEffect:
    """Record the event, and apply its payload or count a notification, in one statement. `margin` is in seconds."""
    return (await apply_events(connection, [(event, snapshot)], margin=margin))[0]


async def apply_events(
    connection: Connection, delivered: Sequence[tuple[EventRecord, Snapshot]], *, margin: int
) -> list[EventEffect]:
    """Apply several events in one statement, and return their effects in the same order.

    The events are of one kind. No object and no event may occur twice, because an upsert cannot change a row twice.
    """
    mirror = mirror_of(delivered[0][1])
    records = await connection.fetch(
        mirror.apply_events,
        [mirror.row(snapshot, event.created) for event, snapshot in delivered],
        [snapshot.id for _, snapshot in delivered],
        [event.id for event, _ in delivered],
        [event.type for event, _ in delivered],
        [event.usable for event, _ in delivered],
        [event.reason for event, _ in delivered],
        margin,
    )
    found = {row["event_id"]: row for row in records}
    return [await _effect(connection, event, found[event.id]) for event, _ in delivered]


async def _effect(connection: Connection, event: EventRecord, row: Record) -> EventEffect:
    """Return the actual effect, and correct the recorded outcome if another transaction changed the row in between."""
    expected = row["expected"]
    if expected is None:
        return EventEffect(claimed=False, outcome="duplicate")
    if row["applied"]:
        outcome = APPLIED
    elif row["noted"]:
        outcome = NOTED if event.usable else event.reason
    else:
        outcome = HAD_ENDED
    if outcome != expected:
        await connection.execute("update webhook_events set outcome = $2 where id = $1", event.id, outcome)
    return EventEffect(claimed=True, outcome=outcome)


async def is_older_than(connection: Connection, kind: str, object_id: str, *, seconds: int) -> bool | None:
    """Return True if the row was synced more than `seconds` ago; None without a row."""
    found: bool | None = await connection.fetchval(MIRRORS[kind].age, object_id, seconds)
    return found


async def serial_of(connection: Connection, kind: str, object_id: str) -> int:
    """Return the row's serial, 0 without a row, so that a fetch that began then may only insert."""
    return int(await connection.fetchval(MIRRORS[kind].serial, object_id) or 0)


async def apply_fetched(connection: Connection, snapshot: Snapshot, *, serial: int, marker: int) -> bool:
    """Apply a fetched snapshot. False if the row has changed since `serial` was read: then fetch the object again.

    A terminal row does not change, but counts as applied, because nothing is left to fetch.
    """
    mirror = mirror_of(snapshot)
    return bool(await connection.fetchval(mirror.apply_fetched, mirror.row(snapshot, marker), serial))


async def mark_absent(connection: Connection, kind: str, object_id: str, *, serial: int, marker: int) -> bool:
    """Mark a row absent. False if it has changed since `serial` was read, as for `apply_fetched`."""
    return bool(await connection.fetchval(MIRRORS[kind].mark_absent, object_id, serial, marker))


@dataclass(frozen=True, slots=True)
class PageEffect:
    """The numbers of rows that a page has inserted, and of objects that differ from their row."""

    inserted: int
    differing: int


async def apply_page(connection: Connection, snapshots: Sequence[Snapshot], *, marker: int) -> PageEffect:
    """Insert the objects of a page that have no row, and count a notification of those that differ.

    All are of one kind. `marker` is the Unix second of the page.
    """
    if not snapshots:
        return PageEffect(0, 0)
    mirror = mirror_of(snapshots[0])
    rows = [mirror.row(snapshot, marker) for snapshot in snapshots]
    record = await connection.fetchrow(mirror.apply_page, rows)
    if record is None:
        raise LookupError("a statement that always answers one row answered none")
    return PageEffect(record["inserted"], record["differing"])


async def without_refused(database: Database, snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """Return the snapshots that PostgreSQL can store. Each is tried behind a savepoint that is rolled back."""
    found = []
    async with database.transaction() as connection:
        for snapshot in snapshots:
            tried = connection.transaction()
            await tried.start()
            try:
                await apply_page(connection, [snapshot], marker=0)
                found.append(snapshot)
            except ValueRefused:
                pass
            finally:
                await tried.rollback()
    return found
