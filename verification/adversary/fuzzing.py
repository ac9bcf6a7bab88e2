"""One principal's run of schemathesis over the committed document, counted."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from schemathesis import Case, GenerationMode, HookContext
from schemathesis.config import SchemathesisConfig
from schemathesis.core.transport import Response
from schemathesis.engine import Status, events, from_schema
from schemathesis.engine.recorder import Interaction

from testkit.databases import CHECKOUT
from verification.adversary.mending import mend

DOCUMENT = CHECKOUT / "openapi" / "openapi.json"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
)
PHASES = ("examples", "coverage", "fuzzing", "stateful")
SERVER_ERROR = 500
REQUEST_SECONDS = 20
STEPS = 12
_ACCEPTED = "202"
_SHOWN = 500
_STATUS = re.compile(r" -> \[\d+\] [A-Za-z]+")

# Which generated values are replaced by known ones, and how often.
_BOUND = {
    "path.customer_id": ("selves", 0.9),
    "path.subscription_id": ("plans", 0.9),
    "path.invoice_id": ("invoices", 0.9),
    "path.payment_method_id": ("cards", 0.8),
    "path.operation_id": ("operations", 0.9),
    "path.code": ("codes", 0.7),
    "query.product_id": ("products", 0.8),
    "query.subscription_id": ("plans", 0.6),
    "body.items[*].price_id": ("prices", 0.8),
    "body.items[*].id": ("items", 0.6),
    "body.items[*].tax_rates[*]": ("tax_rates", 0.5),
    "body.default_tax_rates[*]": ("tax_rates", 0.5),
    "body.discounts[*].coupon": ("coupons", 0.5),
    "body.discounts[*].promotion_code": ("promotions", 0.5),
    "body.payment_method_id": ("cards", 0.7),
    "body.promotion_code": ("codes", 0.6),
    "body.subscription_item_id": ("items", 0.6),
    "body.add[*].email": ("emails", 0.4),
    "body.add[*].customer_id": ("customers", 0.6),
    "body.remove[*]": ("customers", 0.7),
    "body.update[*].customer_id": ("customers", 0.7),
    "body.trial_end": ("moments", 0.6),
    "body.proration_date": ("moments", 0.6),
    "body.to_customer_id": ("customers", 0.7),
}


@dataclass
class Tally:
    """`cases` are requests sent; `links` those of the document that led to one, by name; `broken` by what and where."""

    cases: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    operations: dict[str, set[int]] = field(default_factory=dict)
    links: Counter[str] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def server_errors(self) -> int:
        return sum(number for status, number in self.statuses.items() if status >= SERVER_ERROR)

    def add(self, other: "Tally") -> None:
        self.cases += other.cases
        for name in ("phases", "statuses", "links"):
            getattr(self, name).update(getattr(other, name))
        for operation, statuses in other.operations.items():
            self.operations.setdefault(operation, set()).update(statuses)
        self.broken.update(other.broken)
        self.errors += other.errors


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and the ids that his cases are to name."""

    name: str
    base_url: str
    headers: Mapping[str, str]
    ids: Mapping[str, Sequence[str]]


def _configured(principal: Principal, phase: str, *, seed: int, examples: int) -> SchemathesisConfig:
    """One phase alone, so that each gets its share of the cases. `examples`: of each operation, or chains."""
    phases: dict[str, Any] = {name: {"enabled": name == phase} for name in PHASES}
    if phase == "fuzzing":
        phases[phase]["generation"] = {"max-examples": examples}
    if phase == "stateful":
        # Only what the document declares is followed, and counted.
        phases[phase] |= {
            "generation": {"max-examples": examples, "mode": "positive"},
            "inference": {"algorithms": []},
            "max-steps": STEPS,
        }
    return SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "suppress-health-check": ["all"],
            "base-url": principal.base_url,
            "headers": dict(principal.headers),
            "request-timeout": REQUEST_SECONDS,
            "continue-on-failure": True,
            "generation": {"database": "none", "no-shrink": True, "with-security-parameters": False},
            "checks": {"enabled": False, **{name: {"enabled": True} for name in CHECKS}},
            "phases": phases,
            "dictionaries": {name: {"values": list(ids)} for name, ids in principal.ids.items()},
            "parameters": {
                where: {"dictionary": name, "probability": probability}
                for where, (name, probability) in _BOUND.items()
            },
        }
    )


def linking() -> list[str]:
    """The operations that links lead away from."""
    return sorted(
        operation["operationId"]
        for methods in _document(None)["paths"].values()
        for operation in methods.values()
        if any(response.get("links") for response in operation["responses"].values())
    )


def _document(source: str | None) -> dict[str, Any]:
    """As committed; with the links of `source` alone where one is named, so that chains begin there.

    Chains wait in vain for an answer that never comes: a finished change gives no 202.
    """
    stated: dict[str, Any] = json.loads(DOCUMENT.read_bytes())
    for methods in stated["paths"].values() if source is not None else ():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                if operation["operationId"] != source or status == _ACCEPTED:
                    response.pop("links", None)
    return stated


def declared_links() -> int:
    """Pairs of operations that the document links."""
    return len(
        {
            (operation["operationId"], link["operationId"])
            for methods in _document(None)["paths"].values()
            for operation in methods.values()
            for response in operation["responses"].values()
            for link in response.get("links", {}).values()
        }
    )


def run_phase(
    principal: Principal, phase: str, *, seed: int, most: int, examples: int = 1, source: str | None = None
) -> Tally:
    """Until the phase is through or `most` cases are answered; chains may be told to begin at `source`."""
    tally = Tally()
    config = _configured(principal, phase, seed=seed, examples=examples)
    schema = schemathesis.openapi.from_dict(_document(source), config=config)
    is_admin = principal.name == "admin"

    @schema.hook("map_case")
    def mended(context: HookContext, case: "Case[Any]") -> "Case[Any]":
        if case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE:
            operation = case.operation.definition.raw.get("operationId", "")
            case.body = mend(operation, case.body, is_admin=is_admin)
        return case

    stream = from_schema(schema).execute()
    for event in stream:
        if isinstance(event, events.ScenarioFinished):
            _count(tally, event, phase)
            if tally.cases >= most:
                stream.stop()
        elif isinstance(event, events.NonFatalError):
            tally.errors.append(f"{principal.name} {event.label}: {event.info.title}: {event.info.message}")
        elif isinstance(event, events.FatalError):
            raise event.exception
    return tally


def _count(tally: Tally, event: events.ScenarioFinished, phase: str) -> None:
    recorder = event.recorder
    for case_id, node in recorder.cases.items():
        interaction = recorder.interactions.get(case_id)
        if interaction is None or interaction.response is None:
            continue
        tally.cases += 1
        tally.phases[phase] += 1
        status = interaction.response.status_code
        tally.statuses[status] += 1
        label = node.value.operation.label
        tally.operations.setdefault(label, set()).add(status)
        if node.transition is not None and node.is_transition_applied:
            tally.links[_STATUS.sub("", node.transition.id)] += 1
        failed = {
            check.name: check.failure_info.failure.message
            for check in recorder.checks.get(case_id, [])
            if check.status == Status.FAILURE and check.failure_info is not None
        }
        if status >= SERVER_ERROR:
            failed.setdefault("not_a_server_error", "")
        for check, message in failed.items():
            story = f"{message} | {_told(interaction, interaction.response)}"
            tally.broken.setdefault(f"{check} {status} {label}", story)


def _told(interaction: Interaction, response: Response) -> str:
    sent = interaction.request
    body, answer = (sent.body or b"")[:_SHOWN], response.content[:_SHOWN]
    return f"{sent.method} {sent.uri} {body!r} -> {response.status_code} {answer!r}"
