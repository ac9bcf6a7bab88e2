"""What a change of the OpenAPI document means for callers, and whether it breaks them.

`python -m testkit.openapi_changes BASE` compares the committed document with that of BASE, a git revision or a file.
It prints one line for each difference, and its exit code is 1 if one of them breaks callers. These do: a route,
webhook, parameter, field, type or value that is gone, an answer's field that may be absent now, a request's field that
has to be sent now, and a request's field that took any value and now takes only some. What a webhook posts counts as an
answer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

CHECKOUT = Path(__file__).resolve().parents[1]
DOCUMENT = "openapi/openapi.json"

Json = Mapping[str, Any]
Kind = Literal["route", "webhook", "answer", "parameter", "field", "value", "required", "always sent"]


@dataclass(frozen=True, slots=True, order=True)
class Fact:
    """One thing that callers may rely on. `place` begins with `request` or `answer`, except for a route or webhook."""

    kind: Kind
    place: str
    value: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.kind, self.place, self.value) if part)


@dataclass(slots=True)
class _Reader:
    """Collects the facts of one document. A component is read once for requests and once for answers."""

    document: Json
    facts: set[Fact] = field(default_factory=set)
    read: set[tuple[str, str]] = field(default_factory=set)

    def operation(self, name: str, operation: Json) -> None:
        self.facts.add(Fact("route", name, operation["operationId"]))
        for given in operation.get("parameters", []):
            parameter = self._resolved(given)
            place = f"request {name} {parameter['in']} {parameter['name']}"
            self.facts.add(Fact("parameter", place, self._schema("request", place, parameter["schema"])))
            if parameter.get("required"):
                self.facts.add(Fact("required", place))
        body = operation.get("requestBody")
        if body is not None:
            self._content("request", f"request {name}", body)
            if body.get("required"):
                self.facts.add(Fact("required", f"request {name} body"))
        for status, given in operation["responses"].items():
            self.facts.add(Fact("answer", f"answer {name}", status))
            self._content("answer", f"answer {name} {status}", self._resolved(given))

    def webhook(self, name: str, operation: Json) -> None:
        """Collect what is posted to an endpoint. For its receiver it is what an answer is for a caller."""
        self.facts.add(Fact("webhook", name))
        self._content("answer", f"answer webhook {name}", operation["requestBody"])

    def _content(self, direction: str, place: str, part: Json) -> None:
        for media_type, content in part.get("content", {}).items():
            kind = self._schema(direction, place, content.get("schema", {}))
            self.facts.add(Fact("field", f"{place} {media_type}", kind))

    def _resolved(self, part: Json) -> Json:
        while "$ref" in part:
            found: Any = self.document
            for name in part["$ref"].removeprefix("#/").split("/"):
                found = found[name]
            part = found
        return part

    def _schema(self, direction: str, place: str, schema: Json) -> str:
        """Collect the facts of a schema, and return its type in words."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if (direction, name) not in self.read:
                self.read.add((direction, name))
                self._schema(direction, f"{direction} {name}", self._resolved(schema))
            return str(name)
        for value in (*schema.get("enum", []), *([schema["const"]] if "const" in schema else [])):
            self.facts.add(Fact("value", place, json.dumps(value)))
        for code in schema.get("discriminator", {}).get("mapping", {}):
            self.facts.add(Fact("value", place, json.dumps(code)))
        for name, stated in schema.get("properties", {}).items():
            inner = f"{place}.{name}"
            self.facts.add(Fact("field", inner, self._schema(direction, inner, stated)))
        for name in schema.get("required", []):
            self.facts.add(Fact("required" if direction == "request" else "always sent", f"{place}.{name}"))
        return self._type(direction, place, schema)

    def _type(self, direction: str, place: str, schema: Json) -> str:
        branches = [*schema.get("anyOf", []), *schema.get("oneOf", []), *schema.get("allOf", [])]
        if branches:
            return " or ".join(sorted({self._schema(direction, place, branch) for branch in branches}))
        if "items" in schema:
            return f"list of {self._schema(direction, f'{place}[]', schema['items'])}"
        if isinstance(schema.get("additionalProperties"), Mapping):
            return f"map of {self._schema(direction, f'{place}{{}}', schema['additionalProperties'])}"
        return str(schema.get("type", "anything"))


def facts(document: Json) -> set[Fact]:
    """Return everything that callers of the document may rely on."""
    reader = _Reader(document)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            reader.operation(f"{method.upper()} {path}", operation)
    for name, methods in document.get("webhooks", {}).items():
        reader.webhook(name, methods["post"])
    return reader.facts


def breaks(before: set[Fact], after: set[Fact]) -> Iterator[Fact]:
    """Yield the differences that break callers: facts that are gone, and facts that are new demands."""
    known = {fact.place for fact in before}
    chosen = {fact.place for fact in before if fact.kind == "value"}
    for fact in sorted(before - after):
        if fact.kind != "required":
            yield fact
    for fact in sorted(after - before):
        is_narrower = fact.kind == "value" and fact.place in known and fact.place not in chosen
        is_demand = fact.kind == "required" and _owner_is_known(fact.place, known)
        if is_demand or (is_narrower and fact.place.startswith("request")):
            yield fact


def _owner_is_known(place: str, known: set[str]) -> bool:
    """Return True if the operation or component of a required part was there before. A new one demands nothing."""
    owner, dot, _ = place.rpartition(".")
    if dot:
        return any(one.startswith(f"{owner}.") for one in known)
    return " ".join(place.split(" ")[1:3]) in known


def compare(before: Json, after: Json) -> tuple[list[str], int]:
    """Return one line for each difference, and the number of those that break callers."""
    old, new = facts(before), facts(after)
    breaking = set(breaks(old, new))
    changes = sorted([("-", fact) for fact in old - new] + [("+", fact) for fact in new - old], key=_by_place)
    lines = [f"{sign} {fact}{'   BREAKS CALLERS' if fact in breaking else ''}" for sign, fact in changes]
    return lines, len(breaking)


def _by_place(change: tuple[str, Fact]) -> tuple[str, str, str, str]:
    sign, fact = change
    return fact.place, fact.kind, fact.value, sign


def document_of(base: str) -> Json:
    """Return the document of a file or of a git revision.

    Raises:
        FileNotFoundError: `base` is neither.
    """
    if Path(base).is_file():
        text = Path(base).read_text(encoding="utf-8")
    else:
        shown = subprocess.run(
            ["git", "show", f"{base}:{DOCUMENT}"], cwd=CHECKOUT, capture_output=True, text=True, check=False
        )
        if shown.returncode != 0:
            raise FileNotFoundError(f"{base} is no file, and no git revision with {DOCUMENT}.")
        text = shown.stdout
    found: Json = json.loads(text)
    return found


def main() -> int:
    """Print the differences. The exit code is 0, 1 if one breaks callers, or 2 if there is no such base."""
    parser = argparse.ArgumentParser(prog="python -m testkit.openapi_changes")
    parser.add_argument("base", help="a git revision, or a file")
    parser.add_argument(
        "document", nargs="?", default=str(CHECKOUT / DOCUMENT), help="by default the committed one"
    )
    arguments = parser.parse_args()
    try:
        before, after = document_of(arguments.base), document_of(arguments.document)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    lines, breaking = compare(before, after)
    print("\n".join([*lines, f"{len(lines)} differences, {breaking} of them break callers."]))
    return 1 if breaking else 0


if __name__ == "__main__":
    sys.exit(main())
