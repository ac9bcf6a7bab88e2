"""Every principal x every operation x every relation over HTTP, against the table that was written by hand.

`python -m verification.adversary.matrix` asks every cell; `--share` asks so many of them. Refusals come first: until
they are over the stand-in must not have seen one write of the service's.
"""

import argparse
import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from testkit.company import Person, running_service
from testkit.service import api_process
from testkit.simulator import Simulator, new_account_key
from verification.adversary import acts, pairs, table
from verification.adversary.acts import Ask
from verification.adversary.running import code_of, finish, parts, tell
from verification.adversary.world import Plan, World, build, environment_of, in_batches

SEED = 20261122


@dataclass
class Cell:
    """One question: `ask` is built once the plan is there. `fresh`: its success changes the plan it is asked about."""

    name: str
    kind: str
    principal: str
    ask: Callable[[World, Plan], Ask]
    wanted: table.Answer
    ok: int
    fresh: bool
    pointer: str | None = None


@dataclass
class Seen:
    cells: int = 0
    pairs: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    by_answer: Counter[str] = field(default_factory=Counter)
    misses: list[str] = field(default_factory=list)


def _on_plans() -> list[Cell]:
    found = []
    for kind, rows in table.PLANS.items():
        everywhere = [p for p in table.PRINCIPALS if p not in table.REFUSED and p not in table.READING]
        for name in rows:
            act = acts.PLAN_ACTS[name]
            for principal in table.PRINCIPALS if kind in ("active", "absent") else everywhere:
                wanted = table.on_plan(kind, principal, name, writes=act.writes)
                if wanted is None:
                    continue

                def ask(world: World, plan: Plan, act: acts.Act = act, principal: str = principal) -> Ask:
                    who = world.people_of(plan).get(principal.rpartition(" the ")[2], plan.owner)
                    return act.ask(world, plan, who)

                changes = act.changes and wanted[1] is None
                found.append(Cell(f"{kind}: {name}", kind, principal, ask, wanted, act.ok, changes))
    return found


def _named(world: World, plan: Plan, principal: str, target: str) -> str:
    people = world.people_of(plan)
    match target:
        case "me":
            return "me"
        case "oneself":
            return people[principal.rpartition(" the ")[2]].customer_id
        case "outsider":
            return plan.outsider.customer_id
        case "absent":
            return world.absent_customer
    return people[target].customer_id


def _on_customers() -> list[Cell]:
    found = []
    for name in (*table.CUSTOMERS, *table.SELF_ONLY):
        act = acts.CUSTOMER_ACTS[name]
        for principal in table.PRINCIPALS:
            targets = ("owner",) if principal in table.REFUSED else table.TARGETS
            for target in targets:
                wanted = table.on_customer(principal, name, target, writes=act.writes)
                if wanted is None:
                    continue

                def ask(
                    world: World,
                    plan: Plan,
                    act: acts.CustomerAct = act,
                    principal: str = principal,
                    target: str = target,
                ) -> Ask:
                    return act.ask(world, plan, _named(world, plan, principal, target))

                changes = act.writes and wanted[1] is None
                found.append(
                    Cell(f"customer {target}: {name}", "active", principal, ask, wanted, act.ok, changes)
                )
    return found


def _in_general() -> list[Cell]:
    found = []
    for name in table.GENERAL:
        act = acts.GENERAL_ACTS[name]
        for principal in table.PRINCIPALS:
            wanted = table.in_general(principal, name, writes=act.writes)
            if wanted is None:
                continue

            def ask(world: World, plan: Plan, act: acts.Act = act) -> Ask:
                return act.ask(world, plan, plan.owner)

            changes = act.writes and wanted[1] is None
            found.append(Cell(name, "active", principal, ask, wanted, act.ok, changes))
    return found


def _admin_fields() -> list[Cell]:
    found = []
    for name, fields in table.ADMIN_FIELDS.items():
        for pointer, value in fields.items():
            for kind in ("owner pays", "active", "absent"):
                for principal in table.PRINCIPALS:
                    wanted = table.on_admin_field(principal)
                    if wanted[1] is None or (kind != "active" and principal in table.REFUSED):
                        continue
                    for given in (value, None) if kind == "active" else (value,):
                        asking = acts.with_field(name, pointer, given)

                        def ask(
                            world: World,
                            plan: Plan,
                            asking: Callable[[World, Plan, Any], Ask] = asking,
                            principal: str = principal,
                        ) -> Ask:
                            who = world.people_of(plan).get(principal.rpartition(" the ")[2], plan.owner)
                            return asking(world, plan, who)

                        named = pointer if wanted[1] == "field_not_allowed" else None
                        label = f"{kind}: {name} with {pointer} {given}"
                        found.append(
                            Cell(label, kind, principal, ask, wanted, 200, fresh=False, pointer=named)
                        )
    return found


BUYERS = ("owner", "write key for the owner", "read key for the owner", "write key", "admin key")


def _prices() -> list[Cell]:
    found = []
    for name, naming in acts.PRICE_ACTS.items():
        for which in table.PRICES:
            for principal in BUYERS:
                wanted = table.on_price(principal, which)
                if wanted is None:
                    continue

                def ask(
                    world: World,
                    plan: Plan,
                    naming: Callable[[World, Plan, str, str], tuple[Ask, int]] = naming,
                    which: str = which,
                ) -> Ask:
                    return naming(world, plan, plan.owner.customer_id, world.prices[which])[0]

                ok = 202 if name == "buy" else 200
                changes = wanted[1] is None and name != "preview"
                found.append(
                    Cell(f"{name} a price {which}", "owner pays", principal, ask, wanted, ok, changes)
                )
    return found


def all_cells() -> list[Cell]:
    return [*_on_plans(), *_on_customers(), *_in_general(), *_admin_fields(), *_prices()]


PERSONAL = re.compile(r"cus_\w+|[\w.+-]+@example\.com")
AMOUNT = re.compile(r'"(?:unit_amount|unit_amount_decimal|amount_due|total_amount|amount)":"?[0-9]')


def _not_his(world: World, plan: Plan, cell: Cell, asked: Ask, text: str) -> set[str]:
    """Ids and e-mails of people, and amounts, in an answer to somebody who is not to see them."""
    role = cell.principal.rpartition(" the ")[2]
    if cell.principal in table.KEYS or (role == cell.principal and role not in table.PEOPLE):
        return set()
    on_it = [plan.owner, plan.payer, plan.manager, plan.peer, plan.user, plan.second]
    may_see = {
        "owner": on_it,
        "manager": on_it,
        "user": [plan.user, plan.owner, plan.payer],
        "payer": on_it if cell.kind == "seated ownerless" else [plan.payer, plan.owner],
        "stranger": [world.foreign.owner],
        "newcomer": [],
    }[role if role in table.PEOPLE else "newcomer"]
    sent = f"{asked.path} {asked.body} {asked.query}"
    told = {word for word in PERSONAL.findall(text) if word not in sent}
    told -= {word for person in may_see for word in (person.customer_id, person.email)}
    if may_see == on_it and role in ("owner", "manager", "payer"):
        told -= {one.email for one in plan.invited}
    if cell.fresh:
        # A change may make people and things; it must still tell nobody who is there already.
        told &= {word for p in _everybody(world, plan) for word in (p.customer_id, p.email)}
    # What he buys himself is his own business; a plan that others pay for has no price for a user.
    his_own = "/customers" in asked.path or asked.path.startswith("/v1/products")
    return told if role != "user" or his_own else told | set(AMOUNT.findall(text))


def _everybody(world: World, plan: Plan) -> list[Person]:
    found = [plan.outsider]
    for one in (plan, *world.shared.values()):
        found += [one.owner, one.payer, one.manager, one.peer, one.user, one.second]
    return found


async def _judge(world: World, api: httpx.AsyncClient, cell: Cell, plan: Plan, seen: Seen) -> None:
    asked = cell.ask(world, plan)
    answer = await api.request(
        asked.method,
        asked.path,
        headers={**asked.headers, **world.headers(cell.principal, plan)},
        params=dict(asked.query),
        json=asked.body,
    )
    status, code = cell.wanted
    got, want = (answer.status_code, code_of(answer)), (status or cell.ok, code)
    seen.cells += 1
    seen.by_kind[cell.name.partition(":")[0]] += 1
    seen.by_answer[f"{got[0]} {got[1] or ''}".strip()] += 1
    if got != want:
        seen.misses.append(f"{cell.principal} / {cell.name}: {got}, not {want}: {answer.text[:300]}")
    elif told := _not_his(world, plan, cell, asked, answer.text):
        seen.misses.append(f"{cell.principal} / {cell.name}: tells {sorted(told)}: {answer.text[:300]}")
    elif cell.pointer is not None:
        named = [error["pointer"] for error in answer.json().get("errors", [])]
        if cell.pointer not in named:
            seen.misses.append(f"{cell.principal} / {cell.name}: names {named}, not {cell.pointer}")


async def _writes_of_the_service(stripe: Simulator) -> list[str]:
    found = await stripe.requests()
    return [
        f"{entry['method']} {entry['path']}"
        for entry in found
        if entry["method"] != "GET" and entry["actor"] != "dashboard"
    ]


async def run(stripe_base: str, database_url: str, *, share: float = 1.0) -> Seen:
    """Asks the cells, or a `share` of them; what did not answer as the table says is in `misses`."""
    cells = all_cells()
    if share < 1:
        cells = random.Random(SEED).sample(cells, int(len(cells) * share))
    changing = [cell for cell in cells if cell.fresh]
    needed = Counter(cell.kind for cell in changing)
    kinds = list(table.PLANS)
    seen = Seen()
    async with Simulator(stripe_base, new_account_key()) as stripe:
        environment = environment_of(stripe, database_url)
        async with running_service(stripe, database_url) as service:
            with api_process(environment) as (base_url, _):
                async with httpx.AsyncClient(base_url=base_url, timeout=60.0) as api:
                    world = World(stripe, service, environment)
                    await build(world, kinds, needed, api)
                    await _refusals(world, api, [c for c in cells if c.wanted[1] is not None], seen)
                    await _pairs(world, api, share, seen)
                    await _successes(world, api, [c for c in cells if c.wanted[1] is None], seen)
    return seen


async def _refusals(world: World, api: httpx.AsyncClient, cells: Sequence[Cell], seen: Seen) -> None:
    tell(f"{len(cells)} cells that must be refused")
    before = await _writes_of_the_service(world.stripe)
    await in_batches(_judge(world, api, cell, world.shared[cell.kind], seen) for cell in cells)
    for write in (await _writes_of_the_service(world.stripe))[len(before) :]:
        seen.misses.append(f"a refusal reached Stripe: {write}")


async def _pairs(world: World, api: httpx.AsyncClient, share: float, seen: Seen) -> None:
    asked = list(pairs.all_pairs(world))
    if share < 1:
        asked = random.Random(SEED).sample(asked, int(len(asked) * share))
    tell(f"{len(asked)} times a foreign id and an absent one, in every place that takes one")
    before = await _writes_of_the_service(world.stripe)
    seen.pairs = len(asked)
    seen.misses += await pairs.compare(world, api, asked)
    for write in (await _writes_of_the_service(world.stripe))[len(before) :]:
        # A quote that names somebody unknown is still a quote, and only a preview at Stripe.
        if write != "POST /v1/invoices/create_preview":
            seen.misses.append(f"a refusal reached Stripe: {write}")


async def _successes(world: World, api: httpx.AsyncClient, cells: Sequence[Cell], seen: Seen) -> None:
    """Reads on the shared plans, then each change on a plan of its own."""
    tell(f"{len(cells)} cells that must succeed")
    await in_batches(
        _judge(world, api, cell, world.shared[cell.kind], seen) for cell in cells if not cell.fresh
    )
    await in_batches(
        _judge(world, api, cell, world.fresh[cell.kind].pop(), seen) for cell in cells if cell.fresh
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--share", type=float, default=1.0, help="the share of cells and pairs that is asked (0-1)"
    )
    given = parser.parse_args()
    with parts() as (stripe_base, database_url):
        seen = asyncio.run(run(stripe_base, database_url, share=given.share))
    report = {
        "check": "matrix",
        "cells": seen.cells,
        "pairs": seen.pairs,
        "answers": dict(sorted(seen.by_answer.items())),
    }
    finish(report, seen.misses)


if __name__ == "__main__":
    main()
