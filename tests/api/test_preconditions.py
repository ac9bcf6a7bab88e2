"""A write with an `If-Match` that is outdated changes nothing, and a route that cannot judge one refuses it."""

from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from testkit.company import Company, Service, new_email
from testkit.problems import ok, pointers, problem
from testkit.service import as_service
from tests.contract.declared import Operation, operations

WRITES = [one for one in operations().values() if one.method != "GET"]
JUDGED = {
    "updateSubscription",
    "cancelSubscription",
    "resumeSubscription",
    "setSeats",
    "updateSharedSubscriptionUsers",
    "updateCustomer",
}
REFUSED = [one for one in WRITES if one.name not in JUDGED]


@dataclass(frozen=True)
class Write:
    """A write by a company's owner, and the path of the object whose ETag it may name."""

    method: str
    path: str
    body: dict[str, Any] | None
    seen: str

    async def send(self, company: Company, tag: str) -> httpx.Response:
        who = company.owner.headers
        return await company.service.send(self.method, self.path, who, self.body, If_Match=tag)

    async def tag(self, company: Company) -> str:
        answer = await company.service.get(self.seen, company.owner.headers)
        return answer.headers["etag"]


def write_of(name: str, company: Company) -> Write:
    mine = f"/v1/subscriptions/{company.subscription_id}"
    return {
        "updateSubscription": Write("PATCH", mine, {"cancel_at_period_end": True}, mine),
        "cancelSubscription": Write("POST", f"{mine}/cancel", None, mine),
        "resumeSubscription": Write("POST", f"{mine}/resume", None, mine),
        "setSeats": Write("PUT", f"{company.path}/seats", {"total": 8}, company.path),
        "updateSharedSubscriptionUsers": Write(
            "PATCH", f"{company.path}/users", {"add": [{"email": new_email()}]}, company.path
        ),
        "updateCustomer": Write("PATCH", "/v1/customers/me", {"name": "Olive"}, "/v1/customers/me"),
    }[name]


@pytest.mark.parametrize("name", sorted(JUDGED))
async def test_write_changes_nothing_when_its_if_match_is_outdated(service: Service, name: str) -> None:
    """The header was ignored, so two people who saw the same seats both set them."""
    company = await service.company()
    if name == "resumeSubscription":
        end = {"cancel_at_period_end": True}
        path = f"/v1/subscriptions/{company.subscription_id}"
        ok(await service.send("PATCH", path, company.owner.headers, end))
    write = write_of(name, company)
    tag = await write.tag(company)
    before = await service.row_counts()
    problem(await write.send(company, '"as it was"'), 412, "version_conflict")
    assert await service.row_counts() == before
    ok(await write.send(company, f'"another", {tag}'))
    assert await write.tag(company) != tag
    # A profile that has the name already is as if the call were repeated, which is allowed.
    stale = replace(write, body={"name": "Olga"}) if name == "updateCustomer" else write
    problem(await stale.send(company, tag), 412, "version_conflict")
    ok(await write.send(company, "*"))


def test_document_names_the_writes_that_judge_if_match() -> None:
    assert {one.name for one in WRITES if "412" in one.responses} == JUDGED


@pytest.mark.parametrize("operation", REFUSED, ids=[one.name for one in REFUSED])
async def test_write_refuses_if_match_when_it_cannot_judge_it(service: Service, operation: Operation) -> None:
    path = operation.path.replace("{", "").replace("}", "")
    answer = await service.send(operation.method, path, as_service("admin"), None, If_Match="*")
    assert pointers(problem(answer, 422, "invalid_request")) == ["header/If-Match"]


async def test_profile_is_changed_when_the_call_is_repeated_after_its_answer_was_lost(
    service: Service,
) -> None:
    """The repeated call saw its own change, and was told that somebody else had changed the profile."""
    company = await service.company()
    write = write_of("updateCustomer", company)
    who = {**company.owner.headers, "If-Match": await write.tag(company), "Idempotency-Key": "lost"}
    await service.stripe.add_fault(
        method="POST", path="/v1/customers/{id}", object=company.owner.customer_id, timeout=0.05, times=0
    )
    problem(await service.send(write.method, write.path, who, write.body), 503, "stripe_unavailable")
    await service.stripe.clear_faults()
    at_stripe = f"/v1/customers/{company.owner.customer_id}"
    await service.stripe.post(at_stripe, name="Olive")
    await service.refresh("customer", company.owner.customer_id)
    ok(await service.send(write.method, write.path, who, write.body))


async def test_addition_is_made_when_an_invitation_is_overdue_and_the_caller_reads_again(
    service: Service,
) -> None:
    """Its seat was freed in the transaction that the 412 rolled back, so each read showed what each write refused."""
    company = await service.company(seats=4)
    await company.invite(company.owner.headers, new_email())
    await service.fetch(
        "update invitations set expires_at = clock_timestamp() where subscription_id = $1",
        company.subscription_id,
    )
    write = write_of("updateSharedSubscriptionUsers", company)
    answer = await write.send(company, await write.tag(company))
    if answer.status_code == httpx.codes.PRECONDITION_FAILED:
        answer = await write.send(company, await write.tag(company))
    ok(answer)
