"""Store list scans: how far each range of a list has been read, and what a reconcile has found.

A range is an interval of seconds of creation, read newest first. Its cursor advances in the transaction that applies
the page, and only for the process that took the list scan last (`fence`). So a process that was paused for long cannot
change anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.domain.snapshots import Snapshot
from app.mirror.store.object_keys import id_of, key_of
from app.mirror.store.rows import MIRRORS, Mirror, mirror_of
from app.postgres.database import Connection

Purpose = Literal["fill", "reconcile"]
Finding = Literal["missing", "stale", "orphaned", "unclear", "unreadable"]


@dataclass(frozen=True, slots=True)
class ListScan:
    """A list scan as one process has taken it.

    `planned_at` is the Unix second, by Stripe's clock, up to which the ranges reach for certain.
    """

    id: int
    fence: int
    planned_at: int


@dataclass(slots=True)
class Range:
    """A range of a list and how far it has been read.

    `open_ids` are the ids seen in second `last_created`, because the next page may begin with the same second.

    `created_from` and `created_to` are seconds, both inclusive; `created_to` None reaches to the newest object.
    """

    position: int
    kind: str
    created_from: int
    created_to: int | None
    last_id: str | None = None
    last_created: int | None = None
    open_ids: list[str] = dataclasses.field(default_factory=list)
    pages: int = 0
    objects: int = 0


async def resume(connection: Connection, purpose: Purpose, *, dry_run: bool) -> ListScan | None:
    """Take the unfinished list scan of that purpose, None without one. Its former holder cannot write any more.

    A dry run is not continued after another run has repaired what it found.
    """
    row = await connection.fetchrow(
        """update list_scans set fence = fence + 1 where id = (
            select s.id from list_scans s
            where s.purpose = $1 and s.dry_run = $2 and s.finished_at is null and not ($2 and exists (
                select from list_scans n where n.purpose = $1 and not n.dry_run
                  and greatest(n.started_at, n.finished_at) > s.started_at))
            order by s.id desc limit 1)
        returning id, fence, planned_at""",
        purpose,
        dry_run,
    )
    return None if row is None else ListScan(**dict(row))


async def start(connection: Connection, purpose: Purpose, *, dry_run: bool, planned_at: int) -> ListScan:
    """Begin a list scan. Unfinished ones of its purpose are abandoned, and all findings of that purpose deleted.

    A dry run does so to dry runs only, and any other run to all others. An unfinished one stays the newest beside a dry
    run: the database asks the newest one whether a change comes from a reconcile.
    """
    scans = "select id from list_scans where purpose = $1 and dry_run = $2"
    await connection.execute(
        """update list_scans set finished_at = clock_timestamp(), outcome = 'abandoned'
        where purpose = $1 and dry_run = $2 and finished_at is null""",
        purpose,
        dry_run,
    )
    for table in ("list_scan_ranges", "list_scan_findings"):
        await connection.execute(f"delete from {table} where scan_id in ({scans})", purpose, dry_run)
    row = await connection.fetchrow(
        """insert into list_scans (purpose, dry_run, fence, planned_at) values ($1, $2, 1, $3)
        returning id, fence, planned_at""",
        purpose,
        dry_run,
        planned_at,
    )
    if row is None:
        raise LookupError("an insert that always answers one row answered none")
    if dry_run:
        await _number_again(connection, purpose)
    return ListScan(**dict(row))


async def _number_again(connection: Connection, purpose: Purpose) -> None:
    """Give the unfinished list scan that is no dry run a number above all others."""
    former = await connection.fetchval(
        "select id from list_scans where purpose = $1 and not dry_run and finished_at is null for update",
        purpose,
    )
    if former is None:
        return
    number = await connection.fetchval(
        "update list_scans set id = default, fence = fence + 1 where id = $1 returning id", former
    )
    for table in ("list_scan_ranges", "list_scan_findings"):
        await connection.execute(f"update {table} set scan_id = $2 where scan_id = $1", former, number)


async def add_range(connection: Connection, scan: ListScan, planned: Range) -> None:
    """Add a range that has not been read yet, unless its position exists."""
    await connection.execute(
        """insert into list_scan_ranges (scan_id, position, kind, created_from, created_to, open_ids, pages, objects)
        values ($1, $2, $3, $4, $5, '{}', 0, 0) on conflict do nothing""",
        scan.id,
        planned.position,
        planned.kind,
        planned.created_from,
        planned.created_to,
    )


async def extend_plan(connection: Connection, scan: ListScan, planned_at: int) -> None:
    """Store that the ranges reach up to `planned_at`."""
    await connection.execute("update list_scans set planned_at = $2 where id = $1", scan.id, planned_at)


async def ranges(connection: Connection, scan: ListScan) -> tuple[list[Range], int]:
    """Return the ranges that are not read to their end, and the next free position."""
    rows = await connection.fetch(
        """select position, kind, created_from, created_to, last_id, last_created, open_ids, pages, objects
        from list_scan_ranges where scan_id = $1 and finished_at is null order by position""",
        scan.id,
    )
    last = await connection.fetchval("select max(position) from list_scan_ranges where scan_id = $1", scan.id)
    return [Range(**dict(row)) for row in rows], (-1 if last is None else last) + 1


async def advance(
    connection: Connection, scan: ListScan, before: Range, after: Range, *, finished: bool
) -> bool:
    """Store how far a range was read. False if another process has taken the scan: then the page must not commit."""
    status = await connection.execute(
        """update list_scan_ranges r set created_from = $5, last_id = $6, last_created = $7, open_ids = $8, pages = $9,
            objects = $10, finished_at = case when $11 then clock_timestamp() end
        from (select id from list_scans where id = $1 and fence = $2 for share) s
        where r.scan_id = s.id and r.position = $3 and r.pages = $4 and r.finished_at is null""",
        scan.id,
        scan.fence,
        before.position,
        before.pages,
        after.created_from,
        after.last_id,
        after.last_created,
        after.open_ids,
        after.pages,
        after.objects,
        finished,
    )
    return status == "UPDATE 1"


async def is_at(connection: Connection, scan: ListScan, reached: Range) -> bool:
    """Return True if this process holds the list scan and has advanced the range to `reached`."""
    return bool(
        await connection.fetchval(
            """select exists (select from list_scan_ranges r join list_scans s on s.id = r.scan_id
            where s.id = $1 and s.fence = $2 and r.position = $3 and r.pages = $4
              and r.last_id is not distinct from $5)""",
            scan.id,
            scan.fence,
            reached.position,
            reached.pages,
            reached.last_id,
        )
    )


async def totals(connection: Connection, scan: ListScan) -> dict[str, tuple[int, int]]:
    """Return the numbers of pages and objects by kind, over all runs of the list scan."""
    rows = await connection.fetch(
        """select kind, sum(pages)::bigint as pages, sum(objects)::bigint as objects
        from list_scan_ranges where scan_id = $1 group by kind""",
        scan.id,
    )
    return {row["kind"]: (row["pages"], row["objects"]) for row in rows}


async def finish(
    connection: Connection, scan: ListScan, outcome: str, report: dict[str, Any] | None = None
) -> None:
    """End a list scan with `outcome` `finished` or `stopped`."""
    await connection.execute(
        """update list_scans set finished_at = clock_timestamp(), outcome = $3, report = $4
        where id = $1 and fence = $2""",
        scan.id,
        scan.fence,
        outcome,
        report,
    )


def _comparison(mirror: Mirror) -> str:
    columns = (*mirror.fields, "existence")
    ours, theirs = (", ".join(f"{row}.{name}" for name in columns) for row in "ti")
    return f"""
        select i.id, case when t.id is null then 'missing' else 'stale' end as finding
        from jsonb_populate_recordset(null::{mirror.table}, $1) i left join {mirror.table} t on t.id = i.id
        where t.id is null
           or (({ours}) is distinct from ({theirs}) and {mirror.may_follow("i", "t", for_certain=False)})"""


_COMPARE = {kind: _comparison(mirror) for kind, mirror in MIRRORS.items()}


async def compare(connection: Connection, snapshots: Sequence[Snapshot]) -> dict[str, Finding]:
    """Return the ids of the objects that have no row or one that differs. All are of one kind."""
    if not snapshots:
        return {}
    mirror = mirror_of(snapshots[0])
    rows = await connection.fetch(_COMPARE[mirror.kind], [mirror.row(snapshot, 0) for snapshot in snapshots])
    return {row["id"]: row["finding"] for row in rows}


async def orphaned_rows(
    connection: Connection, kind: str, *, first: int, last: int, seen: Sequence[str]
) -> list[str]:
    """Return the ids of rows created between two Unix seconds, both inclusive, that are not in `seen`."""
    rows = await connection.fetch(
        f"""select id from {MIRRORS[kind].table}
        where created between $1 and $2 and existence = 'present' and id <> all($3)""",
        first,
        last,
        list(seen),
    )
    return [row["id"] for row in rows]


async def record(
    connection: Connection, scan: ListScan, kind: str, found: dict[str, Finding], *, repaired: Finding | None
) -> None:
    """Store the findings of one page. Findings of the kind `repaired` were repaired by applying the page."""
    await connection.execute(
        """insert into list_scan_findings (scan_id, object_id, kind, finding, outcome)
        select $1, f.id, $2, f.finding, case when f.finding = $5 then 'repaired' end
        from unnest($3::text[], $4::text[]) as f(id, finding) on conflict do nothing""",
        scan.id,
        kind,
        [key_of(kind, object_id) for object_id in found],
        list(found.values()),
        repaired,
    )


async def unsettled(connection: Connection, scan: ListScan, *findings: Finding) -> list[tuple[str, str]]:
    """Return the kind and id of each such finding that has no outcome yet."""
    rows = await connection.fetch(
        """select kind, object_id from list_scan_findings
        where scan_id = $1 and finding = any($2) and outcome is null order by kind, object_id""",
        scan.id,
        list(findings),
    )
    return [(row["kind"], id_of(row["kind"], row["object_id"])) for row in rows]


async def settle(connection: Connection, scan: ListScan, kind: str, object_id: str, outcome: str) -> None:
    """Store the outcome of a finding: `repaired`, `removed`, `unfounded` or `failed`."""
    await connection.execute(
        """update list_scan_findings set outcome = $3
        where scan_id = $1 and kind = $4 and object_id = any($2)""",
        scan.id,
        [key_of(kind, object_id), object_id],
        outcome,
        kind,
    )


async def counts(connection: Connection, scan: ListScan) -> list[tuple[str, str, str | None, int]]:
    """Return the findings of a list scan as rows of kind, finding, outcome and number."""
    rows = await connection.fetch(
        """select kind, finding, outcome, count(*) as number from list_scan_findings
        where scan_id = $1 group by kind, finding, outcome""",
        scan.id,
    )
    return [(row["kind"], row["finding"], row["outcome"], row["number"]) for row in rows]


async def rows_present(connection: Connection, kind: str) -> int:
    """Return the number of rows of a kind whose objects exist."""
    return int(
        await connection.fetchval(f"select count(*) from {MIRRORS[kind].table} where existence = 'present'")
    )


async def is_present(connection: Connection, kind: str, object_id: str) -> bool:
    """Return True if the object's row exists and is neither absent nor deleted."""
    return bool(
        await connection.fetchval(
            f"select exists (select from {MIRRORS[kind].table} where id = $1 and existence = 'present')",
            object_id,
        )
    )


async def last_reconcile(connection: Connection, *, dry_runs: bool = True) -> dict[str, Any] | None:
    """Return outcome, report and age in seconds of the last reconcile that was not abandoned.

    Without `dry_runs` those that only compared are left out.
    """
    row = await connection.fetchrow(
        """select outcome, report, dry_run, extract(epoch from clock_timestamp() - finished_at)::float as age
        from list_scans where purpose = 'reconcile' and outcome in ('finished', 'stopped') and ($1 or not dry_run)
        order by id desc limit 1""",
        dry_runs,
    )
    return None if row is None else dict(row)


async def is_reconcile_due(connection: Connection, *, interval_hours: float) -> bool:
    """Return True if the mirror is filled and no reconcile began within the interval, or one was interrupted."""
    return bool(
        await connection.fetchval(
            """select coalesce((
                select s.finished_at is null or s.started_at + $1 * interval '1 hour' < clock_timestamp()
                from list_scans s where s.purpose = 'reconcile' and not s.dry_run order by s.id desc limit 1),
                a.filled_at + $1 * interval '1 hour' < clock_timestamp())
            from account a where a.filled_at is not null""",
            interval_hours,
        )
    )
