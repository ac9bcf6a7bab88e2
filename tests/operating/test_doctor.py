"""The doctor's findings: each with its object and what to do, none where all is well."""

import pytest

from app.operating import doctor
from app.operating.doctor import EVENTS, webhook_findings
from app.operating.findings import Finding
from app.stripe.client import API_VERSION
from app.stripe.gateway import WebhookEndpoint
from testkit.company import running_service
from testkit.plans import new_customer, new_plan, new_subscription
from testkit.simulator import Simulator

MEMBER, ROLE = "billing_shared_subscription_id", "billing_shared_subscription_role"
OWNER = "billing_shared_subscription_owner"


def endpoint(
    *,
    url: str = "https://api.example.com/webhooks/stripe",
    enabled: bool = True,
    version: str | None = API_VERSION,
    events: frozenset[str] = frozenset({"*"}),
) -> WebhookEndpoint:
    return WebhookEndpoint("we_1", url, enabled, version, events)


def problems(findings: list[Finding], object_id: str) -> list[str]:
    return [finding.problem for finding in findings if finding.object == object_id]


def test_an_endpoint_that_sends_all_in_our_version_is_well() -> None:
    assert webhook_findings([endpoint()]) == []
    assert webhook_findings([endpoint(events=EVENTS)]) == []
    elsewhere = endpoint(url="https://other.example.com/hook", enabled=False)
    assert webhook_findings([endpoint(), elsewhere]) == [], "another service's endpoint is not ours to judge"


@pytest.mark.parametrize(
    ("ill", "word"),
    [
        (endpoint(enabled=False), "disabled"),
        (endpoint(version="2020-08-27"), "2020-08-27"),
        (endpoint(events=EVENTS - {"customer.deleted"}), "customer.deleted"),
        (endpoint(url="https://proxy.example.com/renamed", enabled=False), "disabled"),
    ],
)
def test_an_ill_endpoint_is_named(ill: WebhookEndpoint, word: str) -> None:
    [finding] = webhook_findings([ill])
    assert (finding.object, finding.severity) == ("we_1", "fix")
    assert word in finding.problem


def test_no_endpoint_is_worse_than_one_that_is_not_pinned() -> None:
    assert [finding.severity for finding in webhook_findings([])] == ["fix"]
    assert [finding.severity for finding in webhook_findings([endpoint(version=None)])] == ["notice"]


async def test_a_sound_account_has_nothing_to_fix(stripe_account: Simulator, database_url: str) -> None:
    await stripe_account.post(
        "/v1/webhook_endpoints",
        url="https://api.example.com/webhooks/stripe",
        enabled_events=sorted(EVENTS),
        api_version=API_VERSION,
    )
    async with running_service(stripe_account, database_url) as service:
        company = await service.company(seats=3, users=1)
        await service.fill()
        assert [one for one in await doctor.examine(service.context) if one.severity == "fix"] == []
        assert company.subscription_id


async def test_what_confers_nothing_and_what_is_crowded(stripe_account: Simulator, database_url: str) -> None:
    plan, plain = await new_plan(stripe_account), await new_plan(stripe_account, shared=False)
    payer = await new_customer(stripe_account)

    async def subscribed(price: str, owner: str, seats: int = 1) -> str:
        made = await new_subscription(
            stripe_account, payer, [{"price": price, "quantity": seats}], metadata={OWNER: owner}
        )
        return str(made["id"])

    async def member(of: str, role: str = "user") -> str:
        return await new_customer(stripe_account, card=None, metadata={MEMBER: of, ROLE: role})

    crowded, orphaned = await subscribed(plan.price, payer, 2), await subscribed(plan.price, "cus_nobody")
    unshared, ended = await subscribed(plain.price, payer), await subscribed(plan.price, payer)
    odd_owner = await subscribed(plan.price, "Ada")
    people = [await member(crowded) for _ in range(3)]
    astray, late, lonely = await member("sub_nowhere"), await member(ended), await member(unshared)
    boss, illegible = await member(crowded, "boss"), await member("team one")
    await stripe_account.post(f"/v1/customers/{payer}", metadata={MEMBER: crowded, ROLE: "manager"})
    await stripe_account.delete(f"/v1/subscriptions/{ended}")
    twins = [
        await new_customer(stripe_account, card=None, metadata={"billing_user_id": "ada"}) for _ in range(2)
    ]
    async with running_service(stripe_account, database_url) as service:
        unfilled = await doctor.examine(service.context)
        assert any(one.check == "sync" and "coseat sync" in one.fix for one in unfilled)
        await service.fill()
        found = await doctor.examine(service.context)
        assert problems(found, crowded) == ["4 people on 2 seats"]
        assert "cus_nobody" in problems(found, orphaned)[0]
        assert OWNER in problems(found, odd_owner)[0]
        assert "none of its products supports sharing" in problems(found, unshared)[0]
        assert problems(found, astray) == ["is a member of sub_nowhere, which does not exist"]
        assert problems(found, late) == [f"is a member of {ended}, which is canceled"]
        assert problems(found, payer) == [f"owns {crowded} and also has a member's metadata for it"]
        assert "neither user nor manager" in problems(found, boss)[0]
        assert "no subscription id" in problems(found, illegible)[0]
        assert problems(found, ", ".join(sorted(twins)))
        assert not any(problems(found, one) for one in (*people, lonely))
        assert all(one.fix for one in found)
        await service.fetch(
            """insert into refreshes (id, kind, notifications, notified_at, attempts, last_error, dead_at, not_before)
            values ('cus_dead', 'customer', 1, 0, 8, 'items is not a list', now(), now()),
                ('cus_late', 'customer', 1, 0, 0, null, null, now() - interval '5 minutes') returning id"""
        )
        found = await doctor.examine(service.context)
        assert "items is not a list" in problems(found, "cus_dead")[0]
        assert any("the oldest for 300 s" in one.problem for one in found)


async def test_doctor_names_the_keys_of_further_memberships(
    stripe_account: Simulator, database_url: str
) -> None:
    plan, payer = await new_plan(stripe_account), await new_customer(stripe_account)
    items = [{"price": plan.price, "quantity": 3}]
    live = (await new_subscription(stripe_account, payer, items))["id"]
    ended = (await new_subscription(stripe_account, payer, items))["id"]
    marks = {MEMBER: ended, ROLE: "user", f"billing_{ended}": "manager", f"billing_{live}": "user"}
    both = await new_customer(stripe_account, card=None, metadata=marks)
    further = {f"billing_{ended}": "user", f"billing_{live}": "boss", "billing_sub_sched_1": "user"}
    odd = await new_customer(stripe_account, card=None, metadata=further)
    await stripe_account.delete(f"/v1/subscriptions/{ended}")
    async with running_service(stripe_account, database_url) as service:
        await service.fill()
        found = await doctor.examine(service.context)
    named = {(one.object, one.problem, one.fix) for one in found if one.object in (both, odd)}
    problem = f"is a member of {ended}, which is canceled"
    assert named == {
        (both, problem, f"Remove {MEMBER} and {ROLE} and billing_{ended}."),
        (both, f"billing_{ended} differs from {ROLE}, which counts", f"Correct or remove billing_{ended}."),
        (odd, problem, f"Remove billing_{ended}."),
        (
            odd,
            f"billing_{live} is neither user nor manager: gives no seat",
            f"Correct or remove billing_{live}.",
        ),
        (odd, "billing_sub_sched_1 names no subscription id", "Correct or remove billing_sub_sched_1."),
    }
