"""I19, the invariant of invitations: judged by committed rows, by what was asked and answered, and by Stripe's log.

An invitation names an address, but anybody with its token may accept it. So the judge knows people by their login: of a
customer the one that metadata or a committed link names, of a request its sender's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from verification.simulation.held_database import Change
from verification.simulation.inviting import ACCEPT, DECLINE, token_of
from verification.simulation.judge import ACCEPTING, Invitation, Judge, Operation
from verification.simulation.truth import GRACE_SECONDS, Made, is_live

_USER_ID = "billing_user_id"
_SIGNING_UP = ("customer/", "user/")
"""Of the keys under which a login's customer is created, or named."""
_DONE = ("applied", "unchanged")


def is_of_a_login(one: Made) -> bool:
    """True for what the service wrote because somebody without a customer signed up."""
    return one.key is not None and one.key.startswith(_SIGNING_UP)


def may_invite(judge: Judge, inviter_id: str | None, plan: str, role: str | None, tick: float) -> bool:
    """May the inviter, as they were known at a moment, give somebody this role? None: a service key."""
    if inviter_id is None:
        return True
    found = judge.truth.role(inviter_id, plan, tick)
    if found == "owner":
        return True
    return found == "manager" and (
        role != "manager" or judge.record.world.rules.roles.managers_manage_managers
    )


def invited(judge: Judge) -> Iterator[str]:
    """I19. An open invitation has one seat, by number, and an ended one has none; while an operation fills the seat, it
    belongs to that operation until its end. An invitation is created by somebody who may give its role. It is accepted
    once, while it is open and within its term, with its newest token, and by it the acceptor alone gets a seat. Its
    term does not end while somebody is accepting it. One that was revoked, declined or expired seats nobody. No
    invitation leaves a customer behind: the service creates one for an addition by e-mail, or for the login of
    somebody who accepts.
    """
    yield from _seats(judge)
    yield from _created(judge)
    yield from _accepted(judge)
    yield from _ends(judge)
    yield from _answers(judge)
    yield from _customers(judge)


# ------------------------------------------------------------------------------------------------------------ seats


def _commits(judge: Judge) -> Iterator[list[Change]]:
    """The changes of one transaction after another; two of one moment may come as one."""
    together: list[Change] = []
    for change in judge.record.changes:
        if together and change.tick != together[-1].tick + 1:
            yield together
            together = []
        together.append(change)
    if together:
        yield together


def _seats(judge: Judge) -> Iterator[str]:
    states: dict[str, str] = {}
    holds: dict[int, str | None] = {}
    open_steps: dict[tuple[str, int], bool] = {}
    filling = {(one.operation, one.position): one.invitation for one in judge.reservations if one.invitation}
    freed: dict[tuple[str, int], str] = {}
    for changes in _commits(judge):
        for change in changes:
            row = change.row
            if change.table == "invitations":
                states[row["id"]] = row["state"]
            elif change.table == "reservations":
                is_live_row = row["released_at"] is None and not change.gone
                holds[row["id"]] = row["invitation_id"] if is_live_row else None
                step = (row["operation_id"], row["position"])
                if not is_live_row and step in filling:
                    freed[step] = filling[step] or ""
            elif change.table == "operation_steps":
                open_steps[row["operation_id"], row["position"]] = row["settled_at"] is None
        held = Counter(holds.values())
        for invitation_id, state in states.items():
            if held[invitation_id] != (state == "open"):
                yield f"{invitation_id} is {state} and has {held[invitation_id]} seats"
                return
        for (operation_id, position), invitation_id in freed.items():
            if open_steps[operation_id, position]:
                yield f"the seat of {invitation_id} was freed before the end of {operation_id}/{position}"
                return
        freed.clear()


# --------------------------------------------------------------------------------------------------------- creation


def _created(judge: Judge) -> Iterator[str]:
    truth = judge.truth
    for one in judge.invitations.values():
        row, tick = one.first.row, one.first.tick
        path = f"/v1/shared-subscriptions/{one.subscription_id}/invitations"
        asked = [
            asked
            for asked in judge.record.asked
            if (asked.method, asked.path) == ("POST", path)
            and asked.tick < tick
            and _is_of(judge, asked, row["inviter_id"])
            and (asked.body["email"], asked.body["role"]) == (row["email"], row["role"])
        ]
        if not asked:
            yield f"nobody asked for {one.id} to {row['email']}"
        moments: list[float] = [truth.tick_at(one.first.at - GRACE_SECONDS), tick]
        moments += [made.tick for made in truth.made if moments[0] < made.tick < tick]
        may = partial(may_invite, judge, row["inviter_id"], one.subscription_id, row["role"])
        if not any(may(moment) for moment in moments):
            yield f"{row['inviter_id']} invited a {row['role']} by {one.id} without the right"


def _is_of(judge: Judge, asked: Any, customer_id: str | None) -> bool:
    """Was the request sent by this customer, or for them? None: by a service key for nobody."""
    if customer_id is None:
        return str(asked.who) == "service"
    return _sender(asked) in _logins(judge, customer_id)


def _sender(asked: Any) -> str:
    """The login that sent the request, or that a service key names."""
    return str(asked.who).removeprefix("service for ")


# ------------------------------------------------------------------------------------------------------- acceptance


def _accepted(judge: Judge) -> Iterator[str]:
    seated: dict[str, set[str]] = {}
    for operation in judge.acceptances:
        one = judge.invitations[operation.request["invitation_id"]]
        yield from _admitted(judge, one, operation)
        end = next((found for found in one.rows if found.row["state"] == "expired"), None)
        if end is not None and operation.tick < end.tick < (operation.settled_tick or float("inf")):
            yield f"{one.id} expired while {operation.id} was accepting it"
        if any(step.state in _DONE for step in operation.steps.values()):
            seated.setdefault(one.id, set()).add(operation.id)
            if one.last.row["state"] != "accepted" or one.last.row["operation_id"] != operation.id:
                yield f"{one.id} was accepted by {operation.id} and ended {one.last.row['state']}"
    for made in judge.truth.written:
        owner = judge.operations.get(made.operation or "")
        if owner is not None and owner.kind == ACCEPTING and made.changes_seats:
            seated.setdefault(owner.request["invitation_id"], set()).add(owner.id)
            if made.id != owner.actor_id:
                yield f"{made.key} seats {made.id}, and {owner.actor_id} accepted"
    for invitation_id, operations in seated.items():
        if len(operations) > 1 and not _was_undone(judge, operations):
            yield f"{invitation_id} was accepted {len(operations)} times, by {sorted(operations)}"
    for one in judge.invitations.values():
        if one.last.row["state"] == "accepted" and one.id not in seated:
            yield f"{one.id} is accepted, and no operation says so"


def _was_undone(judge: Judge, operations: set[str]) -> bool:
    """Did all but one of them take effect, were undone by somebody else, and so told as not made?"""
    ends = [step.state in _DONE for name in operations for step in judge.operations[name].steps.values()]
    return sum(ends) <= 1


def _admitted(judge: Judge, one: Invitation, operation: Operation) -> Iterator[str]:
    found = one.before(operation.tick - _together(judge, operation.tick))
    if found is None:
        yield f"{operation.id} accepts {one.id}, which was not there"
        return
    state, generation = found.row["state"], found.row["generation"]
    if state != "open":
        yield f"{operation.id} accepts {one.id}, which was {state}"
    elif found.expires_at <= operation.at:
        yield f"{operation.id} accepts {one.id} {operation.at - found.expires_at:.3f} s after its term"
    token = token_of(one.id, generation)
    senders = {
        _sender(asked)
        for asked in judge.record.asked
        if asked.path == ACCEPT and asked.body["token"] == token and asked.tick < operation.tick
    }
    if not senders & _logins(judge, operation.actor_id):
        yield f"{operation.id} accepts {one.id} for {operation.actor_id}, who did not send its newest token"
    if any(step.customer_id != operation.actor_id for step in operation.steps.values()):
        yield f"{operation.id} adds somebody else than {operation.actor_id}, who accepted {one.id}"
    sent = judge.truth.first_sent.get((operation.id, 0))
    if sent is not None and one.ended_tick < sent.tick:
        yield f"{sent.key} was sent after {one.id} had ended"


def _together(judge: Judge, tick: int) -> int:
    """How many places before this one its transaction began."""
    first = tick
    while first - 1 in judge.commit_ticks:
        first -= 1
    return tick - first


def _logins(judge: Judge, customer_id: str | None) -> set[str]:
    """Whose customer it has been: by metadata, or by a link that was committed and is not written there yet."""
    versions = judge.truth.of.get(customer_id or "", ())
    named = {str((one.after or {}).get("metadata", {}).get(_USER_ID)) for one in versions if one.after}
    return named | judge.linked.get(customer_id or "", set())


# ------------------------------------------------------------------------------------------------------------- ends


def _ends(judge: Judge) -> Iterator[str]:
    truth, end = judge.truth, float("inf")
    added = {
        change.row["invitation_id"]
        for change in judge.record.changes
        if change.table == "operation_steps" and change.row["state"] in _DONE
    }
    for one in judge.invitations.values():
        row, plan = one.last.row, one.subscription_id
        if row["reason"] == "added" and one.id not in added:
            yield f"{one.id} ended because its person was added, and nobody was"
        if row["state"] != "open":
            continue
        if one.last.expires_at < judge.record.ended_at:
            yield f"{one.id} is open after its term"
        if not is_live(truth.at(plan, end)):
            yield f"{one.id} is open, and {plan} has ended"
        inviter = row["inviter_id"]
        if inviter is not None and truth.role(inviter, plan, end, known=False) not in ("owner", "manager"):
            yield f"{one.id} is open, and {inviter} may invite nobody"


# ---------------------------------------------------------------------------------------------------------- answers


def _answers(judge: Judge) -> Iterator[str]:
    """An answer that an invitation has ended is true, and one of an acceptance is about the sender's own."""
    for asked in judge.record.asked:
        if asked.reply is None or asked.reply_tick is None or asked.reply.status not in (200, 202, 204):
            continue
        if asked.path == DECLINE:
            yield from _told_ended(judge, asked, asked.body["token"].split(".")[0], "declined")
        elif asked.method == "DELETE" and "/invitations/" in asked.path:
            yield from _told_ended(judge, asked, asked.path.rpartition("/")[2], "revoked")
        elif asked.path == ACCEPT:
            operation = judge.operations.get(asked.reply.body["operation_id"])
            name = asked.body["token"].split(".")[0]
            if operation is None or operation.request.get("invitation_id") != name:
                yield f"{asked.who} accepted {name} and was answered {asked.reply.body['operation_id']}"
            elif not _is_of(judge, asked, operation.actor_id):
                yield f"{asked.who} accepted {name} and was answered the acceptance of {operation.actor_id}"


def _told_ended(judge: Judge, asked: Any, invitation_id: str, state: str) -> Iterator[str]:
    row = judge.invitations[invitation_id].before(asked.reply_tick)
    if row is None or row.row["state"] != state:
        is_state = None if row is None else row.row["state"]
        yield f"{asked.who} was told that {invitation_id} is {state}, and it was {is_state}"


# -------------------------------------------------------------------------------------------------------- customers


def _customers(judge: Judge) -> Iterator[str]:
    """P12: which customers are created, and for which people."""
    accepting = {_sender(asked) for asked in judge.record.asked if asked.path == ACCEPT}
    for one in judge.truth.written:
        if one.kind != "customer" or one.after is None:
            continue
        metadata = one.after.get("metadata") or {}
        if is_of_a_login(one):
            old = {} if one.before is None else one.before.get("metadata") or {}
            touched = {name for name in {*old, *metadata} if old.get(name) != metadata.get(name)}
            if touched != {_USER_ID} or metadata[_USER_ID] not in accepting:
                yield f"{one.key} writes {sorted(touched)} of {one.id} for {metadata.get(_USER_ID)}"
        elif one.before is None:
            operation = judge.operations.get(one.operation or "")
            step = None if operation is None else operation.steps.get(one.position)
            is_asked = step is not None and step.action == "add" and step.email is not None
            if operation is None or operation.kind == ACCEPTING or not is_asked:
                yield f"{one.key} leaves the customer {one.id} of {one.after.get('email')} behind"
