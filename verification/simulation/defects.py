"""Seat operations broken on purpose.

Each defect is one slip that somebody could make in the code, planted in a named function, statement or constant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from app.domain import metadata as keys
from app.domain.views import SubscriptionView
from app.errors import StripeRejected
from app.http.store import idempotency
from app.mirror import webhooks
from app.mirror.store import members, subscriptions
from app.mirror.store.rows import MIRRORS
from app.operations import kinds, lease_store, people_store, seat_store, sending, waiting, waiting_store
from app.operations import one_step as steps
from app.operations import runner as running
from app.operations import store as operations
from app.operations.attempt_events import event_of
from app.operations.lifecycle import Event
from app.sharing import acceptances, invitation_store, invitations, member_steps, people_rules
from app.sharing import admission as member_changes
from app.sharing.people_rules import PeopleRules
from app.sharing.routes import members as shared_subscriptions
from app.stripe import client as stripe_client
from app.stripe import translate
from app.stripe.attempts import Attempt, Outcome
from app.stripe.billing import BillingCalls
from app.stripe.client import Grant, StripeClient, Tried, Write
from app.stripe.gateway import StripeGateway
from app.stripe.rate_budget import RateBudget
from app.subscriptions import before_sending
from app.subscriptions import changes as subscription_changes
from verification.planting import Change, edited, in_place
from verification.simulation.driver import RATES
from verification.simulation.world import INVITATIONS

_TOO_MANY = 429
_IF_FILLED = "case when filled or r.invitation_id is null"
"""Of a settled step: what becomes of the seat that it has taken from an invitation."""


def _answering(value: Any) -> Any:
    """A coroutine function that answers this whatever it is asked."""

    async def answer(*_: Any, **__: Any) -> Any:
        return value

    return answer


# --------------------------------------------------------------------------------------------------- admission


def _no_lock() -> list[Change]:
    async def lock(connection: Any, subscription_id: Any) -> bool:
        found = await connection.fetchval("select 1 from subscriptions where id = $1", subscription_id)
        return found is not None

    return [(subscriptions, "lock", lock)]


def _with_seats(change: Callable[[Any], Any]) -> list[Change]:
    original = SubscriptionView.seats

    def seats(self: SubscriptionView, *, owner_uses_seat: bool) -> Any:
        return change(original(self, owner_uses_seat=owner_uses_seat))

    return [(SubscriptionView, "seats", seats)]


def _reservations_not_counted() -> list[Change]:
    return _with_seats(lambda seats: seats._replace(reserved=0))


def _one_seat_too_many() -> list[Change]:
    return _with_seats(lambda seats: seats._replace(total=seats.total + 1))


def _no_reservation() -> list[Change]:
    return [
        edited(operations, "_INSERT_RESERVATIONS", ("where operation_id", "where false and operation_id"))
    ]


def _lower_target_not_counted() -> list[Change]:
    return [(seat_store, "lowest_target", _answering(None))]


def _floor_not_checked() -> list[Change]:
    return [(module, "check_floor", lambda *_: None) for module in (subscription_changes, before_sending)]


def _members_of_others_taken() -> list[Change]:
    return [
        (people_store.FoundPerson, "is_full", lambda *_, **__: False),
        (member_steps, "_live_others", _answering(frozenset())),
    ]


def _permission_not_needed() -> list[Change]:
    return [
        (member_changes, "permissions_needed", lambda _: set()),
        (people_rules, "permissions_needed", lambda _: set()),
    ]


# ------------------------------------------------------------------------------------------------------ running


def _actor_not_read_again() -> list[Change]:
    async def all_of_them(self: Any, context: Any, operation: Any, steps: Any, give_up: float) -> Any:
        return steps

    return [(PeopleRules, "permitted", all_of_them), (people_rules, "_allows", lambda *_: True)]


def _freed_before_the_removal() -> list[Change]:
    return [(people_rules, "_against_seat", _answering(None))]


def _when_moved(event: Event, change: Callable[..., Awaitable[Any]]) -> list[Change]:
    """Replace what the service commits when this event moves a step; `change` is given the transition as it is."""
    transition = operations.transition

    async def moving(connection: Any, operation_id: str, step: Any, moved_by: Event, **more: Any) -> Any:
        if moved_by is not event:
            return await transition(connection, operation_id, step, moved_by, **more)

        async def as_it_is() -> Any:
            return await transition(connection, operation_id, step, moved_by, **more)

        return await change(connection, operation_id, step, as_it_is)

    return [(operations, "transition", moving)]


def _seat_released_when_sent() -> list[Change]:
    async def released(connection: Any, operation_id: str, step: Any, as_it_is: Any) -> Any:
        await connection.execute(
            "update reservations set released_at = clock_timestamp() where operation_id = $1 and position = $2",
            operation_id,
            step.position,
        )
        return await as_it_is()

    return _when_moved(Event.SEND_RECORDED, released)


def _lost_answer_is_a_failure() -> list[Change]:
    def failed(attempt: Attempt, **more: Any) -> Event | None:
        event = event_of(attempt, **more)
        return Event.REJECTED if event in (Event.NO_ANSWER, Event.UNSTORED_ERROR) else event

    return [
        (steps, "event_of", failed),
        (steps, "is_known", lambda _: True),
        (steps, "open_until", lambda *_: None),
        *((module, "may_come_late", lambda *_: False) for module in (steps, kinds, sending)),
    ]


def _every_5xx_is_kept() -> list[Change]:
    attempt_of = translate.attempt_of

    def always_kept(error: Any, **more: Any) -> Attempt:
        attempt = attempt_of(error, **more)
        if attempt.outcome is not Outcome.UNSTORED_ERROR:
            return attempt
        return replace(attempt, outcome=Outcome.STORED_ERROR, is_replay=True)

    return [(stripe_client, "attempt_of", always_kept)]


def _rate_refusal_is_a_failure() -> list[Change]:
    """A 429 is classified as Stripe's refusal of the request, like a 400."""
    attempt_of, is_retryable, write_error = (
        translate.attempt_of,
        translate.is_retryable,
        translate.write_error,
    )

    def refused(error: Any, **more: Any) -> Attempt:
        attempt = attempt_of(error, **more)
        return replace(attempt, outcome=Outcome.REJECTED) if error.http_status == _TOO_MANY else attempt

    def retry(error: Any, **more: Any) -> bool:
        return is_retryable(error, **more) and error.http_status != _TOO_MANY

    def told(error: Any, attempt: Attempt) -> Any:
        if error.http_status == _TOO_MANY:
            return StripeRejected("Stripe refused the request.")
        return write_error(error, attempt)

    return [
        (stripe_client, "attempt_of", refused),
        (stripe_client, "is_retryable", retry),
        (stripe_client, "write_error", told),
    ]


def _same_key_for_ever() -> list[Change]:
    async def unmoved(connection: Any, operation_id: str, step: Any, as_it_is: Any) -> Any:
        return step

    return _when_moved(Event.STORED_ERROR, unmoved)


@dataclass(frozen=True, slots=True)
class _Rekeyed(Write[Any]):
    """A write whose key is another one than the step's."""

    change: Callable[[str], str] = str

    async def attempt(self, grant: Grant, key: str) -> Tried[Any]:
        return await Write.attempt(self, grant, self.change(key))


def _rekeyed(write: Write[Any], change: Callable[[str], str]) -> Write[Any]:
    return _Rekeyed(write.client, write.method, write.path, write.params, write.read, write.absent, change)


def _key_of_the_target() -> list[Change]:
    metadata_change = StripeGateway.metadata_change

    def with_key(self: Any, customer_id: Any, values: Any) -> Write[Any]:
        target = f"{customer_id}:{'.'.join(values.values())}"
        return _rekeyed(metadata_change(self, customer_id, values), lambda _: target)

    return [(StripeGateway, "metadata_change", with_key)]


def _new_key_at_every_sending() -> list[Change]:
    send = StripeClient.send

    async def with_new_key(self: Any, grant: Any, method: str, path: str, params: Any, *, key: str) -> Any:
        another = f"{key}/{uuid4().hex}" if method == "post" else key
        return await send(self, grant, method, path, params, key=another)

    return [(StripeClient, "send", with_new_key)]


def _earlier_create_not_looked_for() -> list[Change]:
    return [(member_steps.NewMemberSteps, "created", _answering(None))]


def _orphans_left() -> list[Change]:
    return [(lease_store, "take_orphaned", _answering({})), (lease_store, "take", _answering(False))]


def _settled_when_sent() -> list[Change]:
    """Told as applied before anybody knows."""

    async def settled(connection: Any, operation_id: str, step: Any, as_it_is: Any) -> Any:
        sent = await as_it_is()
        await operations.transition(connection, operation_id, sent, Event.ANSWER_SHOWS_EFFECT)
        return sent

    return _when_moved(Event.SEND_RECORDED, settled)


def _connection_kept_over_the_call() -> list[Change]:
    carry_out = steps.carry_out

    async def operation_lease(work: Any) -> Any:
        async with work.context.database.connection():
            return await carry_out(work)

    return [(running, "carry_out", operation_lease)]


def _time_out_is_an_error() -> list[Change]:
    async def run_within(context: Any, operation_id: str, token: Any, **_: Any) -> Any:
        return await asyncio.wait_for(running.run(context, operation_id, token), 2.0)

    return [(running, "run_within", run_within)]


def _client_key_ignored() -> list[Change]:
    async def operation_id_of(request: Any, principal: Any) -> str:
        return f"op_{uuid4().hex[:24]}"

    return [
        (idempotency, "claim", _answering(None)),
        (shared_subscriptions, "operation_id_of", operation_id_of),
    ]


def _budget_not_asked() -> list[Change]:
    return [(RateBudget, "acquire", _answering(None))]


# ----------------------------------------------------------------------------------------------- what is written


def _wrong_key() -> list[Change]:
    def values(subscription_id: str, role: str) -> dict[str, str]:
        return {"shared_subscription_id": subscription_id, keys.MEMBER_ROLE: role}

    return [(keys, "membership_values", values)]


def _role_verbatim() -> list[Change]:
    def values(subscription_id: str, role: str) -> dict[str, str]:
        return {keys.MEMBER_OF: subscription_id, keys.MEMBER_ROLE: f" {role.title()}"}

    return [(keys, "membership_values", values)]


def _other_metadata_cleared() -> list[Change]:
    metadata_change = StripeGateway.metadata_change

    def clearing(self: Any, customer_id: Any, values: Any) -> Write[Any]:
        return metadata_change(self, customer_id, {**values, "crm_reference": ""})

    return [(StripeGateway, "metadata_change", clearing)]


def _owner_stays_a_member() -> list[Change]:
    return [(members, "is_member", _answering(False))]


@dataclass(frozen=True, slots=True)
class _Twice(Write[Any]):
    """A write that comes after another one."""

    first: Write[Any] | None = None

    async def attempt(self, grant: Grant, key: str) -> Tried[Any]:
        if self.first is not None:
            before = await self.first.attempt(grant, f"{key}/first")
            if before.error is not None:
                return before
        return await Write.attempt(self, grant, key)


def _quantity_written_twice() -> list[Change]:
    update = BillingCalls.subscription_update

    def twice(self: Any, subscription_id: Any, params: Any) -> Write[Any]:
        items = [
            {**item, "quantity": item["quantity"] + 1}
            for item in params.get("items", [])
            if "quantity" in item
        ]
        then = update(self, subscription_id, params)
        if not items:
            return then
        first = update(self, subscription_id, {**params, "items": items})
        return _Twice(then.client, then.method, then.path, then.params, then.read, then.absent, first)

    return [(BillingCalls, "subscription_update", twice)]


# ----------------------------------------------------------------------------------- purchases that wait


def _number_kept_after_the_end() -> list[Change]:
    return [edited(waiting_store, "_REFUSE_UNNAMED", ("and v.released_at is null", "and false"))]


def _invoice_not_read_again() -> list[Change]:
    void = waiting._void

    async def taken_for_void(context: Any, purchase: Any, invoice: Any) -> Any:
        await void(context, purchase, invoice)
        return replace(invoice, status="void", payment=None)

    return [(waiting, "_void", taken_for_void)]


def _ended_without_voiding() -> list[Change]:
    async def as_if_void(context: Any, purchase: Any, invoice: Any) -> Any:
        return replace(invoice, status="void", payment=None)

    return [(waiting, "_void", as_if_void)]


def _named_before_payment() -> list[Change]:
    return [
        edited(
            operations,
            "_INSERT_RESERVATIONS",
            ("case when not awaits_seats then customer_id end", "customer_id"),
            ('case when not awaits_seats then lower(email collate "C") end', 'lower(email collate "C")'),
            ("case when awaits_seats then $2 end", "case when awaits_seats and false then $2 end"),
            (
                "case when awaits_seats then $3::bigint end",
                "case when awaits_seats and false then $3::bigint end",
            ),
        )
    ]


def _waits_for_ever() -> list[Change]:
    return [edited(waiting_store, "_COLUMNS", ("t.payment_until < clock_timestamp()", "false"))]


# --------------------------------------------------------------------------------------------------- invitations


def _invitation_without_a_seat() -> list[Change]:
    return [edited(invitation_store, "_RESERVE", ("values ($1, $2)", "select $1, $2 where false"))]


def _seat_kept_after_the_acceptance() -> list[Change]:
    """The reservation goes back to the invitation, and its end does not release it."""
    return [
        edited(operations, "_SETTLE", (_IF_FILLED, "case when r.invitation_id is null")),
        edited(invitation_store, "_RELEASE", ("where invitation_id", "where false and invitation_id")),
    ]


def _seat_lost_with_a_refused_acceptance() -> list[Change]:
    return [edited(operations, "_SETTLE", (_IF_FILLED, "case when true"))]


def _ended_invitation_accepted() -> list[Change]:
    async def as_if_open(connection: Any, name: Any, **more: Any) -> Any:
        return replace(await invitations.of_token(connection, name, **more), state="open")

    return [
        (acceptances, "of_token", as_if_open),
        (invitation_store, "is_open", _answering(True)),
    ]


def _end_not_seen_at_the_sending() -> list[Change]:
    return [(invitation_store, "is_open", _answering(True))]


def _old_token_accepted() -> list[Change]:
    async def any_generation(connection: Any, name: Any, *, locked: bool = False) -> Any:
        look = invitation_store.lock if locked else invitation_store.one
        return await look(connection, name.invitation_id)

    return [(acceptances, "of_token", any_generation)]


def _right_to_invite_not_needed() -> list[Change]:
    return [(invitations, "require", lambda *_: None)]


def _expiry_frees_the_seat_of_an_acceptance() -> list[Change]:
    """The acceptance frees it again."""
    freed = """with freed as (update reservations r set released_at = clock_timestamp() from invitations i
            where i.id = r.invitation_id and r.released_at is null and r.operation_id is not null
              and i.state = 'open' and i.expires_at <= clock_timestamp())
        select end_invitations("""
    return [edited(invitation_store, "_EXPIRE_DUE", ("select end_invitations(", freed))]


def _term_ends_during_the_acceptance() -> list[Change]:
    return [
        edited(invitation_store, "_EXPIRE_DUE", ("where t.invitation_id", "where false and t.invitation_id"))
    ]


# ---------------------------------------------------------------------------------------------------- the cache


def _deleted_revived() -> list[Change]:
    margin = ("(excluded.marker > t.marker + $7 or", "(true or")
    return [
        edited(m, "apply_events", (m.may_follow("excluded", "t"), "true"), margin) for m in MIRRORS.values()
    ]


def _event_dropped() -> list[Change]:
    take = webhooks._take

    async def some(context: Any, ingest: Any, event: Any, *, livemode: bool) -> str:
        if event.type == "customer.updated":
            return "ignored: not kept"
        return await take(context, ingest, event, livemode=livemode)

    return [(webhooks, "_take", some)]


DEFECTS: dict[str, Callable[[], list[Change]]] = {
    "no lock at admission": _no_lock,
    "reservations not counted": _reservations_not_counted,
    "one seat too many": _one_seat_too_many,
    "no reservation": _no_reservation,
    "lower target not counted": _lower_target_not_counted,
    "floor not checked": _floor_not_checked,
    "members of others taken": _members_of_others_taken,
    "permission not needed": _permission_not_needed,
    "actor not read again": _actor_not_read_again,
    "freed before the removal": _freed_before_the_removal,
    "seat released when sent": _seat_released_when_sent,
    "lost answer is a failure": _lost_answer_is_a_failure,
    "every 5xx is kept": _every_5xx_is_kept,
    "rate refusal is a failure": _rate_refusal_is_a_failure,
    "same key for ever": _same_key_for_ever,
    "key of the target": _key_of_the_target,
    "new key at every sending": _new_key_at_every_sending,
    "earlier create not looked for": _earlier_create_not_looked_for,
    "orphans left": _orphans_left,
    "settled when sent": _settled_when_sent,
    "connection kept over the call": _connection_kept_over_the_call,
    "time-out is an error": _time_out_is_an_error,
    "client key ignored": _client_key_ignored,
    "budget not asked": _budget_not_asked,
    "wrong key": _wrong_key,
    "role verbatim": _role_verbatim,
    "other metadata cleared": _other_metadata_cleared,
    "owner stays a member": _owner_stays_a_member,
    "quantity written twice": _quantity_written_twice,
    "number kept after the end": _number_kept_after_the_end,
    "invoice not read again": _invoice_not_read_again,
    "ended without voiding": _ended_without_voiding,
    "named before payment": _named_before_payment,
    "waits for ever": _waits_for_ever,
    "invitation without a seat": _invitation_without_a_seat,
    "seat kept after the acceptance": _seat_kept_after_the_acceptance,
    "seat lost with a refused acceptance": _seat_lost_with_a_refused_acceptance,
    "ended invitation accepted": _ended_invitation_accepted,
    "end not seen at the sending": _end_not_seen_at_the_sending,
    "old token accepted": _old_token_accepted,
    "right to invite not needed": _right_to_invite_not_needed,
    "expiry frees the seat of an acceptance": _expiry_frees_the_seat_of_an_acceptance,
    "term ends during the acceptance": _term_ends_during_the_acceptance,
    "deleted revived": _deleted_revived,
    "event dropped": _event_dropped,
}

NOTICED_BY = {
    "no lock at admission": "20261122/47",
    "actor not read again": "20261122/35",
    "owner stays a member": "20261122/24",
    "new key at every sending": "20261122/69",
    "lower target not counted": "20261122/75",
    "rate refusal is a failure": f"20261122{RATES}24",
    "every 5xx is kept": "20261122/91",
    "floor not checked": "20261122/13",
    "seat released when sent": "20261122/27",
    "earlier create not looked for": "20261122/275",
    "number kept after the end": "20261122/70",
    "invoice not read again": "20261122/174",
    "ended without voiding": "20261122/22",
    "named before payment": "20261122/2",
    "waits for ever": "20261122/13",
    "invitation without a seat": f"20261122{INVITATIONS}0",
    "seat kept after the acceptance": f"20261122{INVITATIONS}2",
    "seat lost with a refused acceptance": f"20261122{INVITATIONS}23",
    "ended invitation accepted": f"20261122{INVITATIONS}0",
    "end not seen at the sending": f"20261122{INVITATIONS}0",
    "old token accepted": f"20261122{INVITATIONS}9",
    "right to invite not needed": f"20261122{INVITATIONS}11",
    "expiry frees the seat of an acceptance": f"20261122{INVITATIONS}18",
    "term ends during the acceptance": f"20261122{INVITATIONS}1",
}
"""For defects that few schedules notice, one that did, which is tried first. A change of the code may change it."""


def tried_first(name: str) -> list[str]:
    """Return the seed that noticed the defect, if it is known."""
    return [NOTICED_BY[name]] if name in NOTICED_BY else []


def planted(name: str | None) -> AbstractContextManager[None]:
    """With one of `DEFECTS` in place; None is the code as it is."""
    return in_place([] if name is None else DEFECTS[name]())
