"""The invariants of seat operations, each judged by the stand-in's log and by what the service told and committed.

Nothing here asks the code under test: seats, roles and owners are read from metadata by `schedule_truth`, the order
of things is the harness's own. Where somebody edits by hand, only what the service was bound to know counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from verification.simulation.driver import Record
from verification.simulation.held_stripe import Json
from verification.simulation.invited import invited, is_of_a_login, may_invite
from verification.simulation.judge import ACCEPTING, MOVING, Judge, Operation, Step
from verification.simulation.truth import (
    ID_KEY,
    OPERATION_KEY,
    OWNER_KEY,
    ROLE_KEY,
    Made,
    holder_of,
    is_live,
    owner_of,
    quantity_of,
    role_on,
    roles_of,
)

ROLE_SECONDS = 2.0
"""A right that was lost at Stripe may be used for so long."""
SETTLED_SECONDS = 360.0
"""After the faults end, every operation is terminal within: LATE_WINDOW, and a minute."""
KEPT_SECONDS = 86_400.0 - 60.0
"""For so long an answer is kept under its client's key."""
_ON_PEOPLE = ("add", "remove", "update")
_NOT_NOW = (
    "rate_limited",
    "stripe_limit_reached",
    "stripe_unavailable",
    "database_unavailable",
    "overloaded",
)
"""The codes of parts that may answer later. The schedules reach no limit of a single object at Stripe."""
_BINDS_NOTHING = ("request_in_progress", "operation_in_progress")
"""Refusals that only ask to send the request again: their key stays free."""
_CANCEL = re.compile(r"/v1/operations/(op_[0-9a-f]{24})/cancel")


def verdicts(record: Record) -> list[str]:
    """Every violation, beginning with the invariant's number."""
    judge = Judge(record)
    found = [f"harness: {error}" for error in record.errors]
    for name, violations in INVARIANTS.items():
        found += [f"{name}: {text}" for text in violations(judge)]
    return found


def admission(judge: Judge) -> Iterator[str]:
    """I1. Without edits of seats from outside, no version shows more members than seats. With them, no write of the
    service makes a plan more over-allocated than it was, as far as the service was bound to know when the step was
    first sent; and a reservation is committed only where members and promised seats fit, after the call's own
    removals and purchase, as far as it was bound to know then. They fit into the seats that every unsettled change of
    the quantity leaves, too. So does the seat that an invitation reserves by number.
    """
    if not judge.truth.edited:
        yield from _over_allocated(judge)
    yield from _written_beyond(judge)
    yield from _admitted_beyond(judge)


def _over_allocated(judge: Judge) -> Iterator[str]:
    truth = judge.truth
    for one in truth.written:
        if one.kind not in ("customer", "subscription"):
            continue
        for plan in truth.plans:
            members, seats = truth.members(plan, one.tick), truth.quantity(plan, one.tick)
            taken = len(members - judge.moving(plan, one.tick, members))
            if taken > seats:
                yield f"{taken} members on {seats} seats of {plan} after {one.key}"


def _written_beyond(judge: Judge) -> Iterator[str]:
    truth = judge.truth
    for one in truth.written:
        sent = truth.first_sent.get((one.operation or "", one.position))
        if one.kind != "customer" or sent is None:
            continue
        for plan in roles_of(one.after).keys() - roles_of(one.before).keys():
            members = truth.sure_members(plan, sent.tick)
            members -= judge.moves_from(str(one.operation)) | judge.moving(plan, sent.tick, members)
            seats = truth.most_seats(plan, sent.tick)
            if any(role_on(state, plan) for state in truth.possible(one.id, sent.tick)):
                continue
            if (
                one.id not in {holder_of(state) for state in truth.possible(plan, sent.tick)}
                and len(members) >= seats
            ):
                yield f"{one.key} adds {one.id} to {len(members)} members on {seats} seats of {plan}"


def _admitted_beyond(judge: Judge) -> Iterator[str]:
    truth = judge.truth
    for number in judge.numbers:
        plan, begun = number.subscription_id, number.begun
        taken, most = (
            judge.taken(plan, begun),
            min(truth.most_seats(plan, begun), judge.lowest_target(plan, begun)),
        )
        if number.is_new and taken > most:
            yield f"{number.invitation} was admitted with {taken} of {most} seats of {plan}"
    for reserved in judge.reservations:
        operation = judge.operations[reserved.operation]
        if operation.steps[reserved.position].action == "update":
            # A member's own seat is kept for the member, however many there are.
            continue
        if operation.kind == MOVING or (reserved.invitation is not None and operation.kind != ACCEPTING):
            # The seat is taken already, or promised by an invitation. The seats are judged when it is filled.
            continue
        if any(step.action == "buy_seats" for step in operation.steps.values()):
            continue
        plan = reserved.subscription_id
        # Where owners take a seat the new one takes the old one's.
        freed = int(operation.kind == "transfer" and truth.record.world.rules.owner_uses_seat)
        taken, seats = judge.taken(plan, reserved.begun) - freed, truth.most_seats(plan, reserved.begun)
        if taken > seats:
            yield f"{operation.id} was admitted with {taken} of {seats} seats of {plan}"
        target = judge.lowest_target(plan, reserved.begun)
        if taken > target:
            yield f"{operation.id} was admitted with {taken} seats of {plan}, which may become {target}"


def floor(judge: Judge) -> Iterator[str]:
    """I2. No write of the service lowers the quantity below the members and the promised seats that it was bound to
    know of when the step was first sent.
    """
    truth = judge.truth
    for one in truth.written:
        if one.kind != "subscription" or one.before is None:
            continue
        new = quantity_of(one.after)
        sent = truth.first_sent.get((one.operation or "", one.position))
        if sent is None or new >= quantity_of(one.before) or not is_live(one.after):
            continue
        if new >= truth.least_seats(one.id, sent.tick):
            continue
        taken = judge.taken(one.id, sent.tick)
        if new < taken:
            yield f"{one.key} lowers {one.id} to {new}, {taken} are taken"


def own_key(judge: Judge) -> Iterator[str]:
    """I3. No write of the service changes somebody's membership of another living plan, or adds somebody to more plans
    than one person may be on, as far as it was bound to know when the step was first sent. Nobody has two living
    reservations for one plan.
    """
    truth, limit = judge.truth, judge.record.world.rules.memberships_per_customer
    for one in truth.written:
        sent = truth.first_sent.get((one.operation or "", one.position))
        if one.kind != "customer" or sent is None or one.before is None:
            continue
        plan = judge.operations[str(one.operation)].subscription_id
        states = [roles_of(state) for state in truth.possible(one.id, sent.tick)]
        others = {
            other: role
            for other, role in (states[0] if states else {}).items()
            if other != plan
            and other in truth.plans
            and all(roles.get(other) == role for roles in states)
            and all(is_live(state) for state in truth.possible(other, sent.tick))
        }
        before, after = roles_of(one.before), roles_of(one.after)
        for other, role in others.items():
            if before.get(other) == role != after.get(other):
                yield f"{one.key} changes the membership of {one.id} on {other}"
        if plan in after and not any(plan in roles for roles in [before, *states]) and len(others) >= limit:
            yield f"{one.key} adds {one.id} to {plan} beside {len(others)} others"
    for number, reserved in enumerate(judge.reservations):
        for other_one in judge.reservations[:number]:
            together = other_one.begun < reserved.ended and reserved.begun < other_one.ended
            same_plan = reserved.subscription_id == other_one.subscription_id
            person = reserved.customer_id is not None and reserved.customer_id == other_one.customer_id
            by_mail = (
                reserved.customer_id is None
                and other_one.customer_id is None
                and reserved.email is not None
                and reserved.email == other_one.email
            )
            if together and same_plan and (person or by_mail):
                promised_to = reserved.customer_id or reserved.email
                yield f"two reservations for {promised_to}: {reserved.operation}, {other_one.operation}"


def _suffices(judge: Judge, operation: Operation, step: Step, tick: float) -> bool:
    """May the actor, as he was known at a moment, do this step?"""
    truth, actor = judge.truth, operation.actor_id
    if operation.kind == MOVING:
        return True  # The seat was given to the address that this login has verified.
    if operation.kind == ACCEPTING:
        # An invitation rests on its inviter's right.
        return may_invite(judge, operation.request["inviter_id"], operation.subscription_id, step.role, tick)
    if actor is None:
        return not operation.principal.startswith("user:")
    plan, roles = operation.subscription_id, judge.record.world.rules.roles
    role = truth.role(actor, plan, tick)
    state = truth.view(plan, tick) or {}
    pays = state.get("customer") == actor
    if step.action == "remove" and step.customer_id == actor:
        return True  # A seat is its holder's to give back: by leaving, or by becoming the owner.
    match operation.kind:
        case "transfer":
            owner = truth.owner(plan, tick, known=True)
            return owner in (operation.request.get("from_id"), operation.request.get("to_id"))
        case "cancel_subscription":
            return role == "owner" or pays
        case "member_change" if step.action in _ON_PEOPLE:
            touches_manager = (
                step.action == "update"
                or step.role == "manager"
                or (
                    step.action == "remove"
                    and role_on(truth.at(step.customer_id or "", tick), plan) == "manager"
                )
            )
            if touches_manager:
                return role == "owner" or (role == "manager" and roles.managers_manage_managers)
            return role in ("owner", "manager")
        case _:
            return role == "owner" or pays or (role == "manager" and roles.managers_buy_seats)


def authority(judge: Judge) -> Iterator[str]:
    """I4. Every write names an operation, and its actor had the right to the step when it was first sent: by what
    the service was bound to know at some moment of the two seconds before. A role that the service itself has
    taken away justifies nothing that is first sent after the answer that said so.
    """
    truth = judge.truth
    for call in truth.stripe.calls:
        key = call.key or ""
        had_effect = call.executed is not None and call.executed >= call.first_version
        if key.startswith("op_") and had_effect and key.split("/")[0] not in judge.operations:
            yield f"{key} belongs to no operation"
    taken_away = _taken_away(judge)
    for (operation_id, position), sent in truth.first_sent.items():
        operation = judge.operations.get(operation_id)
        step = None if operation is None else operation.steps.get(position)
        if operation is None or step is None:
            continue
        moments: list[float] = [truth.tick_at(sent.at - ROLE_SECONDS), sent.tick]
        moments += [one.tick for one in truth.made if moments[0] < one.tick < sent.tick]
        if not any(_suffices(judge, operation, step, moment) for moment in moments):
            yield f"{operation.kind} {sent.key} of {operation.actor_id} ({step.action})"
        for actor, plan, tick in taken_away:
            if actor == operation.actor_id and plan == operation.subscription_id and tick < sent.tick:
                again = any(
                    _suffices(judge, operation, step, m) for m in [tick, *(x for x in moments if x > tick)]
                )
                if not again and operation.kind == "member_change":
                    yield f"{sent.key} of {actor} was sent after his role had been taken away"


def _taken_away(judge: Judge) -> list[tuple[str, str, int]]:
    """Who lost a role by an operation whose caller was told so, and when."""
    found: list[tuple[str, str, int]] = []
    for asked in judge.record.asked:
        if asked.reply is None or asked.reply.status != 200 or asked.reply_tick is None:
            continue
        body = asked.reply.body if isinstance(asked.reply.body, dict) else {}
        operation = judge.operations.get(str(body.get("operation_id")))
        if operation is None or body.get("state") != "settled":
            continue
        found.extend(
            (step.customer_id, operation.subscription_id, asked.reply_tick)
            for step in operation.steps.values()
            if step.customer_id and step.state == "applied" and step.action in ("remove", "update")
        )
    return found


def no_escalation(judge: Judge) -> Iterator[str]:
    """I5. Writes touch our own keys only and leave all other metadata as it was; a role is user or manager; the
    owner's key is written by a transfer, as it was asked for, or by the payer's first change, and a new owner is no
    member any more.
    """
    truth = judge.truth
    for one in truth.written:
        if one.kind not in ("customer", "subscription") or one.after is None:
            continue
        if is_of_a_login(one):
            # The customer of somebody who signs up names their login. I19 says whose it may be.
            continue
        operation = judge.operations.get(one.operation or "")
        old, new = (one.before or {}).get("metadata") or {}, one.after.get("metadata") or {}
        touched = {name for name in {*old, *new} if old.get(name) != new.get(name)}
        further = {f"billing_{plan}" for plan in truth.plans}
        allowed = {ID_KEY, ROLE_KEY} | further if one.kind == "customer" else {OWNER_KEY}
        if one.before is None:
            allowed |= {OPERATION_KEY}
        if touched - allowed:
            yield f"{one.key} touches {sorted(touched - allowed)} of {one.id}"
        if ROLE_KEY in touched and new.get(ROLE_KEY) not in (None, "user", "manager"):
            yield f"{one.key} writes the role {new.get(ROLE_KEY)!r}"
        if ID_KEY in touched and new.get(ID_KEY) not in (None, *truth.plans):
            yield f"{one.key} writes the subscription {new.get(ID_KEY)!r}"
        if OWNER_KEY in touched:
            yield from _owner_written(one, operation)
        other = {n: v for n, v in one.after.items() if n in ("name", "email")}
        if one.before is not None and any(
            (one.before or {}).get(name) != value for name, value in other.items()
        ):
            yield f"{one.key} changes more of {one.id} than its metadata"

    yield from _owners_seated(judge)


def _owner_written(one: Made, operation: Operation | None) -> Iterator[str]:
    named, payer = owner_of(one.after), (one.before or {}).get("customer")
    if operation is not None and operation.kind != "transfer" and operation.actor_id == named == payer:
        # The payer's first change names them, while metadata names nobody.
        if OWNER_KEY in ((one.before or {}).get("metadata") or {}):
            yield f"{one.key} replaces the owner and is no transfer"
    elif operation is None or operation.kind != "transfer":
        yield f"{one.key} writes an owner and is no transfer"
    elif named != operation.request.get("to_id"):
        yield f"{one.key} makes {named} the owner"


def _owners_seated(judge: Judge) -> Iterator[str]:
    truth = judge.truth
    for operation in judge.operations.values():
        new_owner, plan = operation.request.get("to_id"), operation.subscription_id
        ends = [
            step
            for step in operation.steps.values()
            if step.action == "set_owner" and step.state == "applied"
        ]
        if operation.kind != "transfer" or not ends or operation.settled_tick is None or new_owner is None:
            continue
        seated = [
            state for state in truth.possible(new_owner, operation.settled_tick) if role_on(state, plan)
        ]
        if len(seated) == len(truth.possible(new_owner, operation.settled_tick)):
            yield f"{operation.id} makes {new_owner} the owner and leaves him a member"


def once(judge: Judge) -> Iterator[str]:
    """I7. An operation changes each of its targets once at most; one client key and one body have one answer, and
    another body under the key is refused. A subscription's owner is a target of its own: the first change of an
    implicit owner writes the owner key, and the same call may buy seats.
    """
    effects: dict[tuple[str, int, str], list[Made]] = {}
    for one in judge.truth.written:
        if one.changes_seats and one.operation in judge.operations:
            target = one.id if one.before is not None else "new"
            effects.setdefault((str(one.operation), one.position, target), []).append(one)
    for (operation, position, target), found in effects.items():
        if len(found) > 1:
            yield f"{operation}/{position} changed {target} {len(found)} times"
    targets = Counter(
        (operation, target, _sets_owner(judge, operation, position))
        for operation, position, target in effects
        if target != "new"
    )
    yield from (
        f"{operation} changed {target} by {n} steps" for (operation, target, _), n in targets.items() if n > 1
    )
    yield from _client_keys(judge)


def _sets_owner(judge: Judge, operation: str, position: int) -> bool:
    step = judge.operations[operation].steps[position]
    return step.action == "set_owner" or step.details.get("method") == "name_owner"


def _client_keys(judge: Judge) -> Iterator[str]:
    groups: dict[tuple[str, str, str, str], list[Any]] = {}
    for asked in judge.record.asked:
        if asked.key is not None:
            groups.setdefault((asked.who, asked.method, asked.path, asked.key), []).append(asked)
    for (_, method, path, key), group in groups.items():
        final: dict[bytes, Any] = {}
        for asked in sorted(
            (one for one in group if one.reply is not None), key=lambda one: one.reply_tick or 0
        ):
            body, reply = orjson.dumps(asked.body), asked.reply
            code = reply.body.get("code") if isinstance(reply.body, dict) else None
            if reply.status >= 500 or code in _BINDS_NOTHING:
                continue
            others = [known for known in final if known != body]
            if code == "idempotency_key_reused" or asked.at - group[0].at > KEPT_SECONDS:
                continue
            if any(final[known].reply_tick < asked.tick for known in others):
                yield f"{method} {path} {key}: another body was answered {reply.status}"
            earlier = final.setdefault(body, asked)
            # A stored answer that names an erased person goes. The operation answers, with the seats of that moment, if
            # the caller may still see it.
            anybody_erased = _is_anybody_deleted(judge)
            if anybody_erased and (reply.status in (403, 404) or "/invitations" in path):
                # An invitation to an erased person has ended, and so it says.
                continue
            bare = _without_the_erased if anybody_erased else _bare
            if (earlier.reply.status, bare(earlier.reply.body)) != (reply.status, bare(reply.body)):
                yield f"{method} {path} {key}: two answers, {earlier.reply.status} and {reply.status}"


def _bare(body: Any) -> Any:
    return {n: v for n, v in body.items() if n != "request_id"} if isinstance(body, dict) else body


def _without_the_erased(body: Any) -> Any:
    if isinstance(body, dict):
        left_out = ("request_id", "email", "name", "seats")
        return {name: _without_the_erased(value) for name, value in body.items() if name not in left_out}
    return [_without_the_erased(one) for one in body] if isinstance(body, list) else body


def _is_anybody_deleted(judge: Judge) -> bool:
    made = (one for versions in judge.truth.of.values() for one in versions if one.kind == "customer")
    return any(one.after is None or one.after.get("deleted") is True for one in made)


def convergence(judge: Judge) -> Iterator[str]:
    """I9. Once faults and edits have ended and every event has come, the cached rows show what Stripe has."""
    rows: dict[str, Json] = {}
    for change in judge.record.changes:
        if change.table in ("customers", "subscriptions"):
            rows[change.row["id"]] = change.row
    for object_id, row in rows.items():
        made = judge.truth.of.get(object_id)
        if made is not None and _shown(row) != _projected(made[-1].kind, made[-1].after):
            yield f"{object_id} is cached as {_shown(row)}, is {_projected(made[-1].kind, made[-1].after)}"
    known = {*rows, *judge.record.initial}
    for object_id, versions in judge.truth.of.items():
        if versions[0].kind in ("customer", "subscription") and object_id not in known:
            yield f"{object_id} is not cached"
    if not judge.record.rested:
        yield "something is still wanted or open"


def _shown(row: Json) -> Json:
    if row["existence"] != "present":
        return {"gone": True}
    if "items" in row:
        items = sorted((item["id"], item["quantity"]) for item in row["items"])
        return {"status": row["status"], "owner": row["owner_id"], "items": items}
    return {
        "email": row["email"],
        "name": row["name"],
        "roles": row["further_memberships"]
        | ({row["member_of"]: row["member_role"]} if row["member_of"] else {}),
    }


def _projected(kind: str, state: Json | None) -> Json:
    if state is None or state.get("deleted"):
        return {"gone": True}
    if kind == "subscription":
        items = sorted((item["id"], item["quantity"]) for item in state["_items"])
        return {"status": state["status"], "owner": owner_of(state), "items": items}
    return {
        "email": state["email"],
        "name": state["name"],
        "roles": roles_of(state),
    }


def no_regression(judge: Judge) -> Iterator[str]:
    """I10. The version that a cached row shows never becomes an older one, and what is gone stays gone."""
    reached: dict[str, int] = {}
    gone: set[str] = set()
    for change in judge.record.changes:
        if change.table not in ("customers", "subscriptions"):
            continue
        object_id, shown = change.row["id"], _shown(change.row)
        if object_id in gone and shown != {"gone": True}:
            yield f"{object_id} came back"
        if change.row["existence"] == "deleted":
            gone.add(object_id)
        fitting = [
            one.number
            for one in judge.truth.of.get(object_id, ())
            if one.number >= reached.get(object_id, 0)
            and one.tick <= change.tick
            and _projected(one.kind, one.after) == shown
        ]
        if not fitting:
            yield f"{object_id} went back to {shown}"
            continue
        reached[object_id] = fitting[0]


def known_outcome(judge: Judge) -> Iterator[str]:
    """I11. Every operation ends, within a minute after the faults have; each result is what the log shows of it;
    nobody is answered 500, and what takes long is answered 202. A step that took effect may be told as refused or
    failed only where somebody else had undone it before it was settled, or kept the seat by a key of their own.
    """
    for operation in judge.operations.values():
        longest = SETTLED_SECONDS
        if any(step.invoice_id is not None for step in operation.steps.values()):
            longest += judge.record.world.rules.payment_window
        if operation.settled_tick is None:
            yield f"{operation.kind} {operation.id} never ended"
        elif (operation.settled_at or 0) - judge.record.calm_at > longest:
            late = (operation.settled_at or 0) - judge.record.calm_at
            yield f"{operation.kind} {operation.id} ended {late:.0f} s after the faults"
    yield from _results(judge)
    for asked in judge.record.asked:
        if asked.reply is not None and asked.reply.status in (500, 502, 504):
            yield f"{asked.method} {asked.path} was answered {asked.reply.status}: {asked.reply.body}"
        yield from _told(judge, asked)


def _results(judge: Judge) -> Iterator[str]:
    truth = judge.truth
    effects: dict[tuple[str | None, int], list[Made]] = {}
    for one in truth.written:
        if one.operation in judge.operations and judge.operations[one.operation].discarded:
            yield f"{one.key} took effect and its operation was withdrawn"
        if one.changes_seats:
            effects.setdefault((one.operation, one.position), []).append(one)
    for step in judge.steps:
        found = effects.get((step.operation, step.position), [])
        is_denied = step.state in ("refused", "failed", "unchanged") and bool(found)
        if (
            is_denied
            and not _left_a_key(judge, found[-1], step)
            and not _was_overtaken(judge, found[-1], step)
        ):
            told = f"{step.state} ({step.code})"
            yield f"{step.action} {step.operation}/{step.position} is told {told} and took effect"
        if step.state == "applied" and not found and not _was_so(judge, step):
            yield f"{step.action} {step.operation}/{step.position} is told applied and has no effect"


def _left_a_key(judge: Judge, effect: Made, step: Step) -> bool:
    """Did a removal clear one key, and the person keep the seat by another, which somebody had written by hand?"""
    plan = judge.operations[step.operation].subscription_id
    by_hand = [
        one
        for one in judge.truth.of[effect.id]
        if one.key is None and one.tick < effect.tick and role_on(one.after, plan)
    ]
    return step.action == "remove" and bool(by_hand) and role_on(effect.after, plan) is not None


def _was_overtaken(judge: Judge, effect: Made, step: Step) -> bool:
    """Had somebody else undone the effect by the time at which the step was settled?"""
    end = step.settled_tick or 0
    later = any(effect.tick < one.tick <= end for one in judge.truth.of.get(effect.id, ()))
    return later and not _is_so(judge.operations[step.operation], step, judge.truth.at(effect.id, end))


def _was_so(judge: Judge, step: Step) -> bool:
    """Was what the step wanted so at some moment between its admission and its settlement?"""
    truth, operation = judge.truth, judge.operations[step.operation]
    target = step.customer_id if step.action in _ON_PEOPLE else operation.subscription_id
    end = step.settled_tick or 0
    states = [truth.at(target or "", operation.tick)]
    states += [one.after for one in truth.of.get(target or "", ()) if operation.tick <= one.tick <= end]
    return any(_is_so(operation, step, state) for state in states)


def _is_so(operation: Operation, step: Step, state: Json | None) -> bool:
    match step.action:
        case "remove":
            return role_on(state, operation.subscription_id) is None
        case "add" | "update":
            return role_on(state, operation.subscription_id) == step.role
        case "buy_seats":
            return quantity_of(state) >= int(step.details["quantity"])
        case "set_owner":
            return owner_of(state) == operation.request.get("to_id")
        case "cancel_subscription":
            return state is None or not is_live(state) or bool(state.get("cancel_at_period_end"))
        case _:
            items = {item["id"]: item["quantity"] for item in (state or {}).get("_items", ())}
            asked = operation.request.get("params", {}).get("items", [])
            return all(items.get(item.get("id")) == item.get("quantity") for item in asked)


def _told(judge: Judge, asked: Any) -> Iterator[str]:
    """An answer's results are those that the operation ended with."""
    body = asked.reply.body if asked.reply is not None and isinstance(asked.reply.body, dict) else {}
    operation = judge.operations.get(str(body.get("operation_id")))
    if operation is None or not isinstance(body.get("results"), list):
        return
    steps = [step for _, step in sorted(operation.steps.items()) if step.action in _ON_PEOPLE]
    results = [result for result in body["results"] if result["action"] in _ON_PEOPLE]
    for step, result in zip(steps, results, strict=False):
        if result["outcome"] not in ("pending", step.state):
            yield f"{operation.id}/{step.position} was told {result['outcome']} and ended {step.state}"
        if result["outcome"] == "pending" and asked.reply.status == 200:
            yield f"{operation.id}/{step.position} was pending in an answer 200"


def billing(judge: Judge) -> Iterator[str]:
    """I12. An operation writes the quantity once at most, and makes one invoice at most; none where it stays, but one
    that the payer has paid, or that is void because its purchase was given up.
    """
    writes: dict[str, int] = {}
    invoices: dict[str, set[str]] = {}
    for one in judge.truth.written:
        operation = str(one.operation)
        if (
            one.kind == "subscription"
            and one.before is not None
            and quantity_of(one.before) != quantity_of(one.after)
        ):
            writes[operation] = writes.get(operation, 0) + 1
        if one.kind == "invoice" and one.before is None:
            invoices.setdefault(operation, set()).add(one.id)
    yield from (
        f"{operation} wrote the quantity {number} times" for operation, number in writes.items() if number > 1
    )
    for operation, found in invoices.items():
        if len(found) > 1:
            yield f"{operation} made {len(found)} invoices"
        elif operation not in writes and not all(_is_paid_or_void(judge, one) for one in found):
            yield f"{operation} made an invoice and changed no quantity"


def _is_paid_or_void(judge: Judge, invoice_id: str) -> bool:
    versions = judge.truth.of[invoice_id]
    last, was_paid = versions[-1].after, any(one.by == "browser" for one in versions)
    return was_paid or last is None or last["status"] in ("void", "uncollectible")


def bounds(judge: Judge) -> Iterator[str]:
    """I13. No second sees more requests to Stripe than the budget, and none leaves inside a transaction."""
    ats = [call.at for call in judge.truth.stripe.calls]
    first = 0
    most = judge.record.world.per_second
    for last, at in enumerate(ats):
        while at - ats[first] >= 1.0:
            first += 1
        if last - first + 1 > most:
            yield f"{last - first + 1} requests in the second before {at:.3f}, {most} are allowed"
            break
    yield from (f"{text} while a connection was lent" for text in judge.truth.stripe.in_transaction)


def no_zombie(judge: Judge) -> Iterator[str]:
    """I16. After an operation is terminal no request under its keys takes effect any more, however late it comes."""
    for one in judge.truth.written:
        operation = judge.operations.get(one.operation or "")
        if operation is None or operation.settled_tick is None or one.tick <= operation.settled_tick:
            continue
        if one.kind in ("customer", "subscription"):
            yield f"{one.key} changed {one.id} after {operation.kind} {operation.id} had ended"


def purchases(judge: Judge) -> Iterator[str]:
    """I17. A purchase that waits for its payment names nobody before it is paid. It is reported as made only if
    its invoice is paid, and as failed only if nothing can pay it any more. Its reservations end with it. Once the
    faults have ended, one call by any caller with the right abandons it.
    """
    yield from _named_before_payment(judge)
    yield from _told_otherwise_than_paid(judge)
    yield from _reserved_after_the_end(judge)
    yield from _not_abandoned(judge)


def _named_before_payment(judge: Judge) -> Iterator[str]:
    bought = {
        operation.id: min(
            (
                step.settled_tick or float("inf")
                for step in operation.steps.values()
                if step.action == "buy_seats" and step.state in ("applied", "unchanged")
            ),
            default=float("inf"),
        )
        for operation in judge.operations.values()
    }
    numbers = {(step.operation, step.position) for step in judge.steps if step.was_a_number}
    for reserved in judge.reservations:
        if (reserved.operation, reserved.position) in numbers and reserved.begun < bought[reserved.operation]:
            yield f"{reserved.operation}/{reserved.position} holds {reserved.customer_id or reserved.email} unpaid"
    for one in judge.truth.written:
        if (one.operation, one.position) not in numbers or one.kind != "customer":
            continue
        if roles_of(one.after) and one.tick < bought[str(one.operation)]:
            yield f"{one.key} seats {one.id} before it is paid"


def _told_otherwise_than_paid(judge: Judge) -> Iterator[str]:
    truth = judge.truth
    for step in judge.steps:
        if step.invoice_id is None or step.settled_tick is None:
            continue
        status = (truth.at(step.invoice_id, step.settled_tick) or {}).get("status")
        last = (truth.of[step.invoice_id][-1].after or {}).get("status")
        told = f"{step.action} {step.operation}/{step.position} is told {step.state} ({step.code})"
        if step.state == "applied" and status != "paid":
            yield f"{told}, its invoice is {status}"
        if step.state == "failed" and step.code != "paid_without_effect":
            is_live_then = is_live(truth.at(step.subscription_id, step.settled_tick))
            if last == "paid" or (is_live_then and status not in (None, "void", "uncollectible")):
                yield f"{told}, its invoice is {status}, then {last}"


def _reserved_after_the_end(judge: Judge) -> Iterator[str]:
    rows: dict[int, Json] = {
        change.row["id"]: change.row for change in judge.record.changes if change.table == "reservations"
    }
    for row in rows.values():
        operation = judge.operations.get(row["operation_id"])
        if row["released_at"] is None and operation is not None and not operation.discarded:
            yield f"a reservation of {operation.id}/{row['position']} never ended"
    released: set[int] = set()
    for change in judge.record.changes:
        # A released one changes once more where its address is erased.
        if (
            change.table != "reservations"
            or change.row["released_at"] is None
            or change.row["id"] in released
        ):
            continue
        released.add(change.row["id"])
        if change.row["operation_id"] is None:
            continue
        settled = judge.operations[change.row["operation_id"]].settled_tick
        if settled is not None and change.tick > settled:
            yield f"a reservation of {change.row['operation_id']} outlived it"


def _not_abandoned(judge: Judge) -> Iterator[str]:
    for asked in judge.record.asked:
        found = _CANCEL.fullmatch(asked.path)
        if found is None or asked.reply is None:
            continue
        operation, actor, status = judge.operations[found[1]], asked.actor_id, asked.reply.status
        ends = [step for step in operation.steps.values() if step.invoice_id is not None]
        is_ended = any((step.settled_tick or float("inf")) < (asked.reply_tick or 0) for step in ends)
        if status == 200 and not is_ended:
            yield f"abandoning {operation.id} was answered 200, and it had not ended"
        code = asked.reply.body.get("code") if isinstance(asked.reply.body, dict) else None
        may_end = actor is None or judge.truth.owner(operation.subscription_id, asked.tick) == actor
        is_calm = asked.tick >= judge.record.calm_tick
        if is_calm and may_end and status not in (200, 202) and code != "operation_ended":
            yield f"abandoning {operation.id} was answered {status} {code}"
        wanted = status in (200, 202) and any(step.code == "payment_action_required" for step in ends)
        if wanted:
            yield f"{operation.id} was abandoned and ended by its window"


def turned_away(judge: Judge) -> Iterator[str]:
    """I18. A part that does not answer, or that answers 429, only says "not now": no step ends as refused or failed by
    that. It is sent again, or a rule or a read decides.
    """
    answers: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for call in judge.truth.stripe.calls:
        key = (call.key or "").split("/")
        if call.is_write and call.answered_tick is not None and call.answer and key[1:2] and key[1].isdigit():
            answers.setdefault((key[0], int(key[1])), []).append((call.answered_tick, call.answer.status))
    for step in judge.steps:
        if step.state not in ("refused", "failed"):
            continue
        settled = step.settled_tick or 0
        statuses = {
            status for tick, status in answers.get((step.operation, step.position), ()) if tick < settled
        }
        told = f"{step.action} {step.operation}/{step.position} is told {step.state} ({step.code})"
        if step.code in _NOT_NOW:
            yield f"{told} by a part that may answer later, {sorted(statuses)}"
        elif step.code == "stripe_rejected" and statuses == {429}:
            yield f"{told}, and Stripe answered 429 only"


INVARIANTS: dict[str, Callable[[Judge], Iterator[str]]] = {
    "I1": admission,
    "I2": floor,
    "I3": own_key,
    "I4": authority,
    "I5": no_escalation,
    "I7": once,
    "I9": convergence,
    "I10": no_regression,
    "I11": known_outcome,
    "I12": billing,
    "I13": bounds,
    "I16": no_zombie,
    "I17": purchases,
    "I18": turned_away,
    "I19": invited,
}
