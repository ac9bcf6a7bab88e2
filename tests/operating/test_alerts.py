"""Alert rules, dashboard and runbook: they name only metrics that exist, and each alert has its entry."""

import json
import re
from typing import Any

import yaml  # type: ignore[import-untyped]

from app.mirror import recent_events
from app.mirror import reconcile as reconciling
from testkit.company import running_service
from testkit.databases import CHECKOUT
from testkit.service import as_service
from testkit.simulator import Simulator

DEPLOY = CHECKOUT / "deploy"
RUNBOOK = CHECKOUT / "docs" / "how-to" / "runbook.md"
METRIC = re.compile(r"\b(?:coseat|process)_[a-z0-9_]+\b")


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    dashboard = json.loads((DEPLOY / "grafana" / "coseat.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def entries() -> dict[str, str]:
    """Return the runbook's entries by the name of their alert."""
    parts = re.split(r"^### (\w+)\n", RUNBOOK.read_text(), flags=re.MULTILINE)
    return {name: text.partition("\n## ")[0] for name, text in zip(parts[1::2], parts[2::2], strict=True)}


async def test_every_metric_of_rules_and_dashboard_is_shown(
    stripe_account: Simulator, database_url: str
) -> None:
    async with running_service(stripe_account, database_url) as service:
        await service.fill()
        await reconciling.reconcile(service.context, report=lambda _: None)
        await service.fetch("update account set filled_at = now() - interval '1 hour' returning id")
        assert await recent_events.look_when_due(service.context)
        await service.fetch("insert into workers (id, host) values (gen_random_uuid(), 'host') returning id")
        await service.get("/v1/customers/cus_absent", as_service("read"))
        hook = {"url": "http://127.0.0.1:1/hook"}
        await service.send("POST", "/v1/webhook-endpoints", as_service("admin"), hook)
        await service.deliver_state("customer", {"id": "cus_1", "object": "customer"})
        text = (await service.get("/metrics")).text
    shown = set(re.findall(r"^([a-z_0-9]+)(?:\{|\s)", text, re.MULTILINE))
    named = {
        name for text in (*(rule["expr"] for rule in rules()), *queries()) for name in METRIC.findall(text)
    }
    assert named - shown == set()


def test_every_alert_has_an_entry_and_every_entry_an_alert() -> None:
    alerts = {rule["alert"] for rule in rules()}
    assert alerts == set(entries())
    for name, text in entries().items():
        for part in ("**Means:**", "**First:**", "**Remedy:**"):
            assert text.count(part) == 1, (name, part)
        # The first thing to do is a command, a line to search the log for, or a panel to look at.
        assert re.search(r"\*\*First:\*\*[^*]*(?:`|panel)", text), name


def test_every_alert_leads_to_its_entry_and_names_its_part() -> None:
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/how-to/runbook.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["labels"]["severity"] in ("page", "warn") and rule["labels"]["part"]
        # An operator learns of a fault within two minutes.
        assert rule.get("for", "0s") in ("0s", "30s", "1m")


def test_every_alert_has_unit_tests_that_fire_it_and_that_do_not() -> None:
    document = yaml.safe_load((DEPLOY / "prometheus" / "alerts_test.yml").read_text())
    fired: set[str] = set()
    silent: set[str] = set()
    for case in document["tests"]:
        for asked in case["alert_rule_test"]:
            (fired if asked["exp_alerts"] else silent).add(asked["alertname"])
    alerts = {rule["alert"] for rule in rules()}
    assert fired == alerts and silent == alerts
