"""The check of the API's changes finds those that break callers, and lets the others pass."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testkit.databases import CHECKOUT
from testkit.openapi_changes import compare, facts

Document = dict[str, Any]
USERS = "/v1/shared-subscriptions/{subscription_id}/users"


@pytest.fixture(scope="module")
def committed() -> Document:
    return dict(json.loads((CHECKOUT / "openapi" / "openapi.json").read_text(encoding="utf-8")))


def _remove_a_route(document: Document) -> None:
    del document["paths"][USERS]["patch"]


def _remove_an_answers_field(document: Document) -> None:
    del document["components"]["schemas"]["Seats"]["properties"]["available"]


def _remove_a_requests_value(document: Document) -> None:
    document["components"]["schemas"]["CancelRequest"]["properties"]["when"]["enum"].remove("now")


def _require_a_requests_field(document: Document) -> None:
    document["components"]["schemas"]["SeatsRequest"]["required"].append("subscription_item_id")


def _require_a_new_parameter(document: Document) -> None:
    schema = {"type": "string"}
    parameter = {"name": "region", "in": "query", "required": True, "schema": schema}
    document["paths"][USERS]["get"]["parameters"].append(parameter)


def _remove_a_code(document: Document) -> None:
    [content] = document["paths"][USERS]["patch"]["responses"]["409"]["content"].values()
    del content["schema"]["discriminator"]["mapping"]["seat_limit_reached"]


def _change_a_type(document: Document) -> None:
    document["components"]["schemas"]["Seats"]["properties"]["total"]["type"] = "string"


def _send_a_field_sometimes(document: Document) -> None:
    document["components"]["schemas"]["Seats"]["required"].remove("total")


def _limit_what_a_field_takes(document: Document) -> None:
    currency = document["components"]["schemas"]["NewSubscriptionRequest"]["properties"]["currency"]
    currency["anyOf"][0]["enum"] = ["eur", "usd"]


def _remove_a_filter(document: Document) -> None:
    parameters = document["paths"][USERS]["get"]["parameters"]
    parameters[:] = [one for one in parameters if one.get("name") != "search"]


def _post_an_event_no_more(document: Document) -> None:
    del document["webhooks"]["owner.changed"]


def _remove_a_posted_field(document: Document) -> None:
    del document["components"]["schemas"]["SentInvitationData"]["properties"]["token"]


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (_remove_a_route, f"- route PATCH {USERS}"),
        (_remove_an_answers_field, "- field answer Seats.available"),
        (_remove_a_requests_value, '- value request CancelRequest.when "now"'),
        (_require_a_requests_field, "+ required request SeatsRequest.subscription_item_id"),
        (_require_a_new_parameter, f"+ required request GET {USERS} query region"),
        (_remove_a_code, f'- value answer PATCH {USERS} 409 "seat_limit_reached"'),
        (_change_a_type, "- field answer Seats.total integer"),
        (_send_a_field_sometimes, "- always sent answer Seats.total"),
        (_limit_what_a_field_takes, '+ value request NewSubscriptionRequest.currency "eur"'),
        (_remove_a_filter, f"- parameter request GET {USERS} query search"),
        (_post_an_event_no_more, "- webhook owner.changed"),
        (_remove_a_posted_field, "- field answer SentInvitationData.token"),
    ],
)
def test_a_change_that_breaks_callers_is_found(
    committed: Document, plant: Callable[[Document], None], told: str
) -> None:
    changed = copy.deepcopy(committed)
    plant(changed)
    lines, breaking = compare(committed, changed)
    assert breaking >= 1
    assert [line for line in lines if line.startswith(told) and line.endswith("BREAKS CALLERS")], lines


def test_additions_break_nobody(committed: Document) -> None:
    """The other way round: what was planted is taken back, except for what is a demand."""
    for plant in (_remove_a_route, _remove_an_answers_field, _remove_a_requests_value, _remove_a_code):
        earlier = copy.deepcopy(committed)
        plant(earlier)
        lines, breaking = compare(earlier, committed)
        assert lines and breaking == 0, lines


def test_texts_and_examples_are_no_difference(committed: Document) -> None:
    changed = copy.deepcopy(committed)
    changed["info"]["description"] = "Other words"
    changed["components"]["schemas"]["Seats"]["description"] = "Other words"
    assert compare(committed, changed) == ([], 0)
    assert len(facts(committed)) > 1000


def test_the_command_fails_when_a_change_breaks_callers(committed: Document, tmp_path: Path) -> None:
    changed = copy.deepcopy(committed)
    _remove_a_route(changed)
    after = tmp_path / "after.json"
    after.write_text(json.dumps(changed), encoding="utf-8")
    for base, new, code in (
        (CHECKOUT / "openapi/openapi.json", after, 1),
        (after, after, 0),
        ("no-such", after, 2),
    ):
        run = subprocess.run(
            [sys.executable, "-m", "testkit.openapi_changes", str(base), str(new)],
            cwd=CHECKOUT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == code, run.stdout + run.stderr
