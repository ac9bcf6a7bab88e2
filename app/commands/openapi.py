"""The committed OpenAPI document, sorted, beside its recorded examples.

It is sorted so that its changes are easy to read. Each example is a file of its own, which the document names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.main import create_app
from app.settings import Settings

EXAMPLES = Path(__file__).resolve().parents[2] / "openapi" / "examples"
"""Directory of recorded bodies: answers as `<operation>.<status>.json`, requests as `<operation>.request.json`.

An installation without a checkout has none.
"""

COMMON_PROBLEM = "Problem"
"""The name instead of an operation, for the example of a status that all operations share."""
REQUEST = "request"
"""What stands instead of a status in the name of a request's body."""


def document(settings: Settings, examples: Path = EXAMPLES) -> str:
    """Return the OpenAPI document as sorted JSON.

    It names the recorded examples of the directory `examples`.
    """
    stated = create_app(settings).openapi()
    _name_examples(stated, {path.stem for path in examples.glob("*.json")})
    return json.dumps(stated, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _name_examples(stated: dict[str, Any], names: set[str]) -> None:
    """Put the address of each example beside its schema, relative to the document."""
    shared = stated["components"]["responses"]
    for methods in stated["paths"].values():
        for operation in methods.values():
            name = operation["operationId"]
            if f"{name}.{REQUEST}" in names and "requestBody" in operation:
                _add(operation["requestBody"], _example(f"{name}.{REQUEST}"))
            for status, response in operation["responses"].items():
                if f"{name}.{status}" in names:
                    _add(response, _example(f"{name}.{status}"))
                elif f"{COMMON_PROBLEM}.{status}" in names:
                    reference = response.get("$ref", "").rpartition("/")[2]
                    _add(shared.get(reference, response), _example(f"{COMMON_PROBLEM}.{status}"))


def _example(name: str) -> dict[str, Any]:
    return {"externalValue": f"examples/{name}.json"}


def _add(part: dict[str, Any], example: dict[str, Any]) -> None:
    for content in part.get("content", {}).values():
        content["examples"] = {"recorded": example}
