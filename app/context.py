"""The context of use cases: database, clients of Stripe, configured rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.domain.roles import RolePolicy
from app.postgres.database import Database
from app.postgres.installation_counts import InstallationCounts
from app.postgres.leases import LeaseQueues
from app.settings import Settings
from app.stripe.billing import BillingCalls
from app.stripe.breaker import Breakers
from app.stripe.budget import Work
from app.stripe.gateway import StripeGateway
from app.stripe.waits import StripeWaits


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that use cases need.

    `margin` (whole, as Stripe's instants are), `operation_deadline`, `operation_lease`, `late_window` and
    `payment_window` are in seconds. `reconcile_interval` is in hours; with 0 the worker starts none.
    `unsecured_raise_max` is in percent of the paid quantity.
    """

    roles: RolePolicy
    owner_uses_seat: bool
    past_due_allows_new_seats: bool
    open_catalogue: bool
    proration_behavior: str
    margin: int
    operation_deadline: float
    reconcile_interval: float = 0.0
    operation_lease: float = 30.0
    late_window: float = 300.0
    unsecured_raise_max: float = 20.0
    payment_window: float = 3600.0
    journal_retention_days: int = 400
    event_retention_days: float = 35.0
    invitation_days: float = 14.0
    invitation_email_must_match: bool = False
    memberships_per_customer: int = 20

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Return the rules of these settings."""
        return cls(
            roles=RolePolicy(settings.managers_manage_managers, settings.managers_buy_seats),
            owner_uses_seat=settings.owner_uses_seat,
            past_due_allows_new_seats=settings.past_due_allows_new_seats,
            open_catalogue=settings.catalogue == "open",
            proration_behavior=settings.proration_behavior,
            margin=settings.sync_margin,
            operation_deadline=settings.operation_deadline,
            reconcile_interval=settings.reconcile_interval,
            operation_lease=settings.operation_lease,
            late_window=settings.late_window,
            unsecured_raise_max=settings.unsecured_raise_max,
            payment_window=settings.payment_window,
            journal_retention_days=settings.journal_retention_days,
            event_retention_days=settings.event_retention_days,
            invitation_days=settings.invitation_days,
            invitation_email_must_match=settings.invitation_email_must_match,
            memberships_per_customer=settings.memberships_per_customer,
        )


@dataclass(frozen=True, slots=True)
class Context:
    """The parts that a process opens once and all its use cases share.

    `rulebooks`: what binds the operations of each kind, see `app.operations.kinds`. `stripe_waits`: the
    requests of this process that wait for Stripe.
    """

    database: Database
    stripe: StripeGateway
    billing: BillingCalls
    rules: Rules
    rulebooks: Mapping[str, object] = field(default_factory=dict)
    lease_queues: LeaseQueues = field(default_factory=LeaseQueues)
    counts: InstallationCounts = field(default_factory=InstallationCounts)
    breakers: Breakers = field(default_factory=Breakers)
    stripe_waits: StripeWaits = field(default_factory=StripeWaits)

    def doing(self, work: Work) -> Context:
        """Return a context whose fetches count as `work` in Stripe's rate budget.

        It is for work in the background.
        """
        return dataclasses.replace(self, stripe=self.stripe.doing(work))
