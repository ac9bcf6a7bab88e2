"""How a subscription ends: the end that is asked for, the one that stands, and what each status still takes."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from testkit.company import Person, Who
from testkit.problems import pointers, problem
from testkit.service import as_service
from tests.money.shop import Shop, at, settled_by_a_worker, worked_on

ADMIN = as_service("admin")
YEARLY = {"interval": "year"}
YEAR_SECONDS = 365 * 86_400


@pytest.fixture(autouse=True)
async def _no_faults_left(shop: Shop) -> AsyncIterator[None]:
    yield
    await shop.stripe.clear_faults()


async def seats(shop: Shop, quantity: int = 4) -> tuple[Person, dict[str, Any]]:
    """A buyer who owns a shareable subscription of so many seats at 10.00."""
    buyer, card = await shop.buyer()
    team = await shop.price(await shop.product(shared=True))
    items = [{"price_id": team, "quantity": quantity}]
    return buyer, await shop.bought(buyer.headers, items, payment_method_id=card)


async def mixed(shop: Shop) -> tuple[Person, dict[str, Any]]:
    """A buyer of a monthly and a yearly item on one subscription."""
    buyer, card = await shop.buyer()
    items = [{"price_id": await shop.price()}, {"price_id": await shop.price(recurring=YEARLY)}]
    return buyer, await shop.bought(buyer.headers, items, payment_method_id=card)


async def cancel(
    shop: Shop, who: Who, subscription_id: str, body: Any = None, **headers: str
) -> httpx.Response:
    path = f"/v1/subscriptions/{subscription_id}/cancel"
    return await shop.service.send("POST", path, who, body, **headers)


async def resume(shop: Shop, who: Who, subscription_id: str) -> httpx.Response:
    return await shop.service.send("POST", f"/v1/subscriptions/{subscription_id}/resume", who)


async def in_the_dashboard(shop: Shop, subscription_id: str, **params: Any) -> dict[str, Any]:
    changed = await shop.stripe.post(f"/v1/subscriptions/{subscription_id}", **params)
    await shop.listen()
    return dict(changed)


async def test_cancel_at_the_period_ends_it_then_when_a_later_end_was_set_by_hand(shop: Shop) -> None:
    """M5: an end in a year counted as the end that was asked for, and eleven more months were billed."""
    buyer, made = await seats(shop)
    period_end = made["items"][0]["current_period_end"]
    in_a_year = at(period_end) + YEAR_SECONDS
    await in_the_dashboard(shop, made["id"], cancel_at=in_a_year)
    answer = await cancel(shop, buyer.headers, made["id"], {"when": "period_end"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["ends_at"] == period_end
    assert answer.json()["subscription"]["cancel_at"] == period_end
    assert answer.json()["further_charges"] == []
    assert (await shop.true(made["id"]))["cancel_at"] == at(period_end)
    again = await cancel(shop, buyer.headers, made["id"], {"when": "period_end"})
    assert (again.status_code, again.json()) == (200, answer.json())


async def test_update_ends_it_at_the_period_when_a_later_end_was_set_by_hand(shop: Shop) -> None:
    """M5, the same by PATCH."""
    buyer, made = await seats(shop)
    period_end = made["items"][0]["current_period_end"]
    await in_the_dashboard(shop, made["id"], cancel_at=at(period_end) + YEAR_SECONDS)
    answer = await shop.change(buyer.headers, made["id"], cancel_at_period_end=True)
    assert answer.json()["subscription"]["cancel_at"] == period_end
    assert (await shop.true(made["id"]))["cancel_at"] == at(period_end)


@pytest.mark.parametrize("by", ["resume", "update"])
async def test_resume_takes_back_any_end_when_it_was_set_by_hand(shop: Shop, by: str) -> None:
    """M5, its mirror: a date that somebody set in the Dashboard, and the Dashboard's end of the period."""
    buyer, made = await seats(shop)
    end = at(made["items"][0]["current_period_end"])
    for params in (
        {"cancel_at": end - 3600},
        {"cancel_at": end + YEAR_SECONDS},
        {"cancel_at_period_end": True},
    ):
        await in_the_dashboard(shop, made["id"], **params)
        for _ in range(2):
            if by == "resume":
                answer = await resume(shop, buyer.headers, made["id"])
            else:
                answer = await shop.change(buyer.headers, made["id"], cancel_at_period_end=False)
            assert answer.status_code == 200, answer.text
            found = answer.json()["subscription"]
            assert (found["cancel_at"], found["cancel_at_period_end"]) == (None, False)
        true = await shop.true(made["id"])
        assert (true["cancel_at"], true["cancel_at_period_end"]) == (None, False)


@pytest.mark.parametrize("body", [None, {}, {"when": "period_end"}])
async def test_cancel_is_ambiguous_when_items_end_at_different_times(shop: Shop, body: Any) -> None:
    """M18: a yearly item was ended with the month, and eleven paid months were lost."""
    buyer, made = await mixed(shop)
    monthly, yearly = made["items"]
    before = await shop.true(made["id"])
    refused = problem(await cancel(shop, buyer.headers, made["id"], body), 422, "end_ambiguous")
    assert pointers(refused) == ["/when"]
    assert (refused["earliest"], refused["latest"]) == (
        monthly["current_period_end"],
        yearly["current_period_end"],
    )
    assert refused["further_charges"] == [
        {
            "subscription_item_id": monthly["id"],
            "price_id": monthly["price"]["id"],
            "renewals": 11,
            "next_at": monthly["current_period_end"],
        }
    ]
    assert await shop.true(made["id"]) == before


async def test_update_is_ambiguous_when_items_end_at_different_times(shop: Shop) -> None:
    """M18, the same by PATCH, alone and beside a change that makes the ends differ."""
    buyer, made = await mixed(shop)
    answer = await shop.change(buyer.headers, made["id"], cancel_at_period_end=True)
    refused = problem(answer, 422, "end_ambiguous")
    assert pointers(refused) == ["/cancel_at_period_end"]
    assert refused["latest"] == made["items"][1]["current_period_end"]
    buyer, made = await seats(shop)
    yearly = [{"price_id": await shop.price(recurring=YEARLY)}]
    before = await shop.true(made["id"])
    answer = await shop.change(buyer.headers, made["id"], items=yearly, cancel_at_period_end=True)
    problem(answer, 422, "end_ambiguous")
    assert await shop.true(made["id"]) == before


@pytest.mark.parametrize(
    ("when", "item", "renewals"), [("earliest_period_end", 0, []), ("latest_period_end", 1, [11])]
)
async def test_cancel_ends_with_the_named_item_when_ends_differ(
    shop: Shop, when: str, item: int, renewals: list[int]
) -> None:
    """M18: only the caller chooses between paid time that is lost and items that are billed on."""
    buyer, made = await mixed(shop)
    end = made["items"][item]["current_period_end"]
    answer = await cancel(shop, buyer.headers, made["id"], {"when": when})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["ends_at"], told["subscription"]["cancel_at"]) == (end, end)
    assert [charge["renewals"] for charge in told["further_charges"]] == renewals
    assert (await shop.true(made["id"]))["cancel_at"] == at(end)
    again = await cancel(shop, buyer.headers, made["id"], {"when": when})
    assert (again.status_code, again.json()) == (200, told)
    assert await shop.asked("POST", f"/v1/subscriptions/{made['id']}") == 1
    problem(await cancel(shop, buyer.headers, made["id"]), 422, "end_ambiguous")
    back = await resume(shop, buyer.headers, made["id"])
    assert back.json()["subscription"]["cancel_at"] is None
    assert (await shop.true(made["id"]))["cancel_at"] is None
    sent = await shop.stripe.requests(method="POST", path=f"/v1/subscriptions/{made['id']}")
    prorated = [one["params"].get("proration_behavior") for one in sent if one["actor"] != "dashboard"]
    # Stripe would credit what the end cuts off, paid or not, and charge for it again when the end is taken back.
    assert prorated == ["none", "none"]


async def test_end_of_the_dashboard_is_taken_back_with_what_it_credited(shop: Shop) -> None:
    """M18: if an end within a period has credited the rest of it, Stripe charges that again."""
    buyer, made = await mixed(shop)
    path = f"/v1/subscriptions/{made['id']}"
    await shop.stripe.post(path, cancel_at="min_period_end")
    await shop.listen()
    assert (await resume(shop, buyer.headers, made["id"])).status_code == 200
    sent = await shop.stripe.requests(method="POST", path=path)
    [params] = [one["params"] for one in sent if one["actor"] != "dashboard"]
    assert params["cancel_at"] == ""
    assert "proration_behavior" not in params


async def test_cancel_moves_the_end_when_another_one_is_named(shop: Shop) -> None:
    """M5 and M18: an end that stands is not the end that is asked for."""
    buyer, made = await mixed(shop)
    for item, when in ((0, "earliest_period_end"), (1, "latest_period_end"), (0, "earliest_period_end")):
        answer = await cancel(shop, buyer.headers, made["id"], {"when": when})
        end = made["items"][item]["current_period_end"]
        assert answer.json()["ends_at"] == end
        assert (await shop.true(made["id"]))["cancel_at"] == at(end)


@pytest.mark.parametrize("when", ["period_end", "earliest_period_end", "latest_period_end"])
async def test_named_ends_are_one_when_items_end_together(shop: Shop, when: str) -> None:
    buyer, made = await seats(shop)
    answer = await cancel(shop, buyer.headers, made["id"], {"when": when})
    assert answer.json()["ends_at"] == made["items"][0]["current_period_end"]
    assert answer.json()["subscription"]["cancel_at_period_end"] is True
    assert answer.json()["further_charges"] == []


async def test_cancel_takes_the_default_when_the_request_has_no_body(shop: Shop) -> None:
    """O12: without a body it was 422."""
    buyer, made = await seats(shop)
    answer = await cancel(shop, buyer.headers, made["id"])
    assert answer.status_code == 200, answer.text
    assert answer.json()["ends_at"] == made["items"][0]["current_period_end"]
    ended = await cancel(shop, buyer.headers, made["id"], {"when": "now"})
    told = ended.json()
    assert told["subscription"]["status"] == "canceled"
    assert told["ends_at"] == told["subscription"]["ended_at"]
    assert told["further_charges"] == []
    again = await cancel(shop, buyer.headers, made["id"])
    assert (again.status_code, again.json()) == (200, told)


@pytest.mark.parametrize(
    "when", ["soon", "", None, 1, True, ["now"], "latest", "PERIOD_END", "max_period_end"]
)
async def test_cancel_is_refused_when_the_end_is_no_known_word(shop: Shop, when: Any) -> None:
    buyer, made = await seats(shop)
    before = await shop.true(made["id"])
    answer = await cancel(shop, buyer.headers, made["id"], {"when": when})
    assert pointers(problem(answer, 422, "invalid_request")) == ["/when"]
    assert await shop.true(made["id"]) == before


async def test_dashboards_end_of_the_period_is_shown_as_the_earliest_when_ends_differ(shop: Shop) -> None:
    """T10: Stripe resolves it to the earliest end of a period."""
    buyer, made = await mixed(shop)
    earliest = made["items"][0]["current_period_end"]
    await in_the_dashboard(shop, made["id"], cancel_at_period_end=True)
    found = await shop.subscription(buyer.headers, made["id"])
    assert (found["cancel_at"], found["cancel_at_period_end"]) == (earliest, True)
    same = await cancel(shop, buyer.headers, made["id"], {"when": "earliest_period_end"})
    assert (same.status_code, same.json()["ends_at"]) == (200, earliest)
    assert await shop.asked("POST", f"/v1/subscriptions/{made['id']}") == 0
    later = await cancel(shop, buyer.headers, made["id"], {"when": "latest_period_end"})
    assert later.json()["ends_at"] == made["items"][1]["current_period_end"]
    assert (await shop.true(made["id"]))["cancel_at_period_end"] is False


async def test_pause_collection_and_collection_method_are_shown_when_set_by_hand(shop: Shop) -> None:
    """M19: nobody could see that invoices were not collected."""
    buyer, made = await seats(shop)
    assert (made["collection_method"], made["pause_collection"], made["schedule_id"]) == (
        "charge_automatically",
        None,
        None,
    )
    resumes_at = at(made["items"][0]["current_period_end"])
    await in_the_dashboard(shop, made["id"], pause_collection={"behavior": "void", "resumes_at": resumes_at})
    found = await shop.subscription(buyer.headers, made["id"])
    assert found["pause_collection"] == {
        "behavior": "void",
        "resumes_at": made["items"][0]["current_period_end"],
    }
    assert found["status"] == "active"
    await in_the_dashboard(shop, made["id"], pause_collection="")
    assert (await shop.subscription(buyer.headers, made["id"]))["pause_collection"] is None
    await shop.cache_is_true()


async def test_already_so_is_said_of_what_stripe_has(shop: Shop) -> None:
    """M5, its sibling: the Dashboard changed the end a moment ago, and the webhook has not come."""
    buyer, made = await seats(shop)
    path, end = f"/v1/subscriptions/{made['id']}", made["items"][0]["current_period_end"]
    assert (await cancel(shop, buyer.headers, made["id"])).status_code == 200
    await shop.stripe.post(path, cancel_at_period_end=False)
    answer = await cancel(shop, buyer.headers, made["id"])
    assert (answer.status_code, answer.json()["ends_at"]) == (200, end)
    assert (await shop.true(made["id"]))["cancel_at"] == at(end)
    assert (await resume(shop, buyer.headers, made["id"])).status_code == 200
    for by in ("resume", "update"):
        await shop.stripe.post(path, cancel_at_period_end=True)
        if by == "resume":
            answer = await resume(shop, buyer.headers, made["id"])
        else:
            answer = await shop.change(buyer.headers, made["id"], cancel_at_period_end=False)
        assert (answer.status_code, answer.json()["subscription"]["cancel_at"]) == (200, None)
        assert (await shop.true(made["id"]))["cancel_at"] is None


async def test_already_so_is_not_said_while_another_change_of_the_end_is_open(shop: Shop) -> None:
    """M5, its sibling: a cancellation whose answer is lost may still end what `resume` would call going on."""
    buyer, made = await seats(shop)
    update = {"method": "POST", "path": "/v1/subscriptions/{id}"}
    await shop.stripe.add_fault(**update, status=500, effect="before", save=True, times=0)
    answer = await cancel(shop, buyer.headers, made["id"])
    assert answer.status_code == 202, answer.text
    refused = await resume(shop, buyer.headers, made["id"])
    problem(refused, 409, "operation_in_progress")
    await shop.stripe.clear_faults()
    told = await settled_by_a_worker(shop, answer)
    if told["state"] == "running":
        # That try proved that the failure was stored under its key; only then another key may be used.
        told = (await worked_on(shop, answer.json()["operation_id"])).json()
    assert [result["outcome"] for result in told["results"]] == ["applied"]
    again = await cancel(shop, buyer.headers, made["id"])
    assert (again.status_code, again.json()["ends_at"]) == (200, made["items"][0]["current_period_end"])


async def scheduled(shop: Shop, subscription_id: str) -> str:
    """A schedule that manages the subscription from now on."""
    made = await shop.stripe.post("/v1/subscription_schedules", from_subscription=subscription_id)
    await shop.listen()
    return str(made["id"])


async def test_what_a_schedule_forbids_is_refused_before_stripe_is_asked(shop: Shop) -> None:
    """M19: cancelling answered 502, and nothing told why."""
    buyer, made = await seats(shop)
    schedule = await scheduled(shop, made["id"])
    path = f"/v1/subscriptions/{made['id']}"
    assert (await shop.subscription(buyer.headers, made["id"]))["schedule_id"] == schedule
    asked = await shop.asked("POST", path)
    more = [{"id": made["items"][0]["id"], "quantity": 6}]
    for who in (buyer.headers, ADMIN):
        for body in (None, {"when": "period_end"}, {"when": "earliest_period_end"}):
            refused = problem(await cancel(shop, who, made["id"], body), 409, "managed_by_schedule")
            assert "schedule" in refused["detail"] and "when: now" in refused["detail"]
        changed = await shop.change(who, made["id"], cancel_at_period_end=True)
        problem(changed, 409, "managed_by_schedule")
        changed = await shop.change(who, made["id"], items=more, cancel_at_period_end=True)
        problem(changed, 409, "managed_by_schedule")
    # There is no end to take back, so nothing is refused.
    assert (await resume(shop, buyer.headers, made["id"])).status_code == 200
    assert await shop.asked("POST", path) == asked
    changed = await shop.change(buyer.headers, made["id"], items=more)
    assert changed.status_code == 200, changed.text
    ended = await cancel(shop, buyer.headers, made["id"], {"when": "now"})
    assert ended.json()["subscription"]["status"] == "canceled"


async def test_schedules_own_end_is_not_taken_back(shop: Shop) -> None:
    """M19: the end that the schedule brings is shown, and `resume` says whose it is."""
    buyer, made = await seats(shop)
    await in_the_dashboard(
        shop, made["id"], cancel_at=at(made["items"][0]["current_period_end"]) + YEAR_SECONDS
    )
    await scheduled(shop, made["id"])
    problem(await resume(shop, buyer.headers, made["id"]), 409, "managed_by_schedule")
    changed = await shop.change(buyer.headers, made["id"], cancel_at_period_end=False)
    problem(changed, 409, "managed_by_schedule")


async def test_stripes_own_refusal_for_a_schedule_is_409_when_the_cache_does_not_know_it(shop: Shop) -> None:
    """M19: the schedule was made a moment ago, and its webhook has not come."""
    buyer, made = await seats(shop)
    await shop.stripe.post("/v1/subscription_schedules", from_subscription=made["id"])
    problem(await cancel(shop, buyer.headers, made["id"]), 409, "managed_by_schedule")
    key = {"Idempotency_Key": f"schedule {made['id']}"}
    first = await cancel(shop, buyer.headers, made["id"], None, **key)
    again = await cancel(shop, buyer.headers, made["id"], None, **key)
    problem(first, 409, "managed_by_schedule")
    assert (again.status_code, again.content) == (409, first.content)
    assert (await shop.true(made["id"]))["cancel_at"] is None


async def test_released_subscription_is_cancelled_again_as_any_other(shop: Shop) -> None:
    buyer, made = await seats(shop)
    schedule = await scheduled(shop, made["id"])
    problem(await cancel(shop, buyer.headers, made["id"]), 409, "managed_by_schedule")
    await shop.stripe.post(f"/v1/subscription_schedules/{schedule}/release")
    await shop.listen()
    assert (await shop.subscription(buyer.headers, made["id"]))["schedule_id"] is None
    answer = await cancel(shop, buyer.headers, made["id"])
    assert answer.json()["ends_at"] == made["items"][0]["current_period_end"]
    await shop.cache_is_true()


async def test_paused_subscription_with_an_end_goes_on_when_it_is_resumed(shop: Shop) -> None:
    """M5, its mirror: resuming woke it, and left the end that was set."""
    buyer, made = await seats(shop)
    end = at(made["items"][0]["current_period_end"]) + YEAR_SECONDS
    await in_the_dashboard(shop, made["id"], cancel_at=end)
    await shop.stripe.post(f"/v1/subscriptions/{made['id']}/pause", type="subscription")
    await shop.listen()
    found = await shop.subscription(buyer.headers, made["id"])
    assert (found["status"], at(found["cancel_at"])) == ("paused", end)
    for _ in range(2):
        answer = await resume(shop, buyer.headers, made["id"])
        assert answer.status_code == 200, answer.text
        found = answer.json()["subscription"]
        assert (found["status"], found["cancel_at"]) == ("active", None)
    true = await shop.true(made["id"])
    assert (true["status"], true["cancel_at"]) == ("active", None)
    await shop.cache_is_true()


@pytest.mark.parametrize("form", ["nothing", "refusal", "refusal, before"])
async def test_lost_answer_moves_the_end_once(shop: Shop, form: str) -> None:
    """M5: an end that stands already does not show that a lost request has taken effect."""
    fault: dict[str, Any] = {
        "nothing": {"timeout": 0.2, "effect": "after"},
        "refusal": {"status": 500, "effect": "after", "save": True},
        "refusal, before": {"status": 500, "effect": "before", "save": True},
    }[form]
    buyer, made = await mixed(shop)
    assert (await cancel(shop, buyer.headers, made["id"], {"when": "earliest_period_end"})).status_code == 200
    await shop.stripe.add_fault(method="POST", path="/v1/subscriptions/{id}", **fault)
    answer = await cancel(shop, buyer.headers, made["id"], {"when": "latest_period_end"})
    assert answer.status_code == 200, answer.text
    latest = made["items"][1]["current_period_end"]
    assert answer.json()["ends_at"] == latest
    assert (await shop.true(made["id"]))["cancel_at"] == at(latest)
