"""An operation outlives the role of the person who asked for it: it shows what its subscription shows them now."""

import pytest

from testkit.company import Company, Service, new_email
from testkit.problems import ok
from testkit.service import as_service


async def test_a_removed_manager_sees_no_live_seats_when_they_read_their_operation(service: Service) -> None:
    """W5: neither seats, nor ids of members, nor the figures of a refusal."""
    company = await service.company(seats=4)
    email, who = new_email(), company.manager.headers
    added = ok(await company.change(who, add=[email, company.stranger.email]))
    path = f"/v1/operations/{added['operation_id']}"
    before = ok(await service.get(path, who))
    assert before["seats"]["used"] == 4 and all(result["customer_id"] for result in before["results"])
    refused = await company.change(who, add=[new_email()])
    assert refused.status_code == 409 and refused.json()["required"] == 5
    refused_path = f"/v1/operations/{refused.json()['operation_id']}"
    assert ok(await service.get(refused_path, who))["results"][0]["required"] == 5

    ok(await company.change(company.owner.headers, remove=[company.manager.customer_id]))
    after = ok(await service.get(path, who))
    assert after["seats"] is None and after["state"] == "settled"
    told = [(one["email"], one["outcome"], one["customer_id"]) for one in after["results"]]
    assert told == [(email, "applied", None), (company.stranger.email, "applied", None)]
    shown = ok(await service.get(refused_path, who))
    assert shown["seats"] is None
    assert all(shown["results"][0].get(name) is None for name in ("total", "used", "required"))
    everything = ok(await service.get(path, as_service("read")))
    assert everything["seats"]["used"] == 3 and all(one["customer_id"] for one in everything["results"])


async def test_a_manager_sees_no_members_ids_when_they_are_a_user_now(service: Service) -> None:
    """W5: a user sees the subscription's seats, and of its members only their own row."""
    company = await service.company(seats=4)
    added = ok(await company.change(company.manager.headers, add=[new_email()]))
    update = [{"customer_id": company.manager.customer_id, "role": "user"}]
    ok(await company.change(company.owner.headers, update=update))
    after = ok(await service.get(f"/v1/operations/{added['operation_id']}", company.manager.headers))
    assert after["seats"]["used"] == 3 and after["results"][0]["customer_id"] is None


@pytest.mark.parametrize("through_key", [False, True], ids=["a token", "a key acting for them"])
async def test_a_member_sees_no_seats_when_they_have_left(service: Service, through_key: bool) -> None:
    """W5: the answer to leaving is the operation of somebody who has no role any more."""
    company: Company = await service.company(seats=4)
    leaver = company.user
    who = as_service(acting_for=leaver.customer_id) if through_key else leaver.headers
    answer = ok(await service.send("DELETE", f"{company.path}/users/me", who))
    assert answer["seats"] is None
    assert [(one["customer_id"], one["outcome"]) for one in answer["results"]] == [
        (leaver.customer_id, "applied")
    ]
